"""Where in a picture is text: what PP-OCR's detector takes, and boxes out of what it gives.

Pre- and post-processing are those of DB (Liao et al., Real-time Scene Text Detection with Differentiable Binarization,
AAAI 2020), with connected components in the place of contours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mediamesh.agents.document_reader.components import Runs, find_runs
from mediamesh.agents.document_reader.rectangles import grown, smallest_rectangle

if TYPE_CHECKING:
    from mediamesh.agents.document_reader.rectangles import Points

    FloatArray = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["boxes", "detector_input", "tensor"]

_STEP = 32  # sides of the detector's input are multiples of it
_SHORT_SIDE = 736  # smaller pictures are enlarged: letters of a few pixels are not seen
_MOST_PIXELS = 1_500_000  # 18 MB of float32; a message has 22
_TEXT = 0.3  # a pixel is text above it
_SURE = 0.6  # mean of a box
_GROW = 1.5  # DB shrinks the text that it learns; this grows it back: distance = area * _GROW / perimeter
_LEAST_SIDE = 3.0
_MOST_BOXES = 3000


def tensor(image: Image.Image) -> FloatArray:
    """Return a picture as the models of PP-OCR take it: float32 [3, height, width], BGR, from -1 to 1."""
    values = np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1.0
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def detector_input(image: Image.Image) -> FloatArray:
    """Return the picture scaled to what the detector sees well, [1, 3, height, width]."""
    width, height = image.size
    scale = max(1.0, _SHORT_SIDE / min(width, height))
    scale = min(scale, (_MOST_PIXELS / (width * height)) ** 0.5)
    size = [max(_STEP, round(side * scale / _STEP) * _STEP) for side in (width, height)]
    if size[0] * size[1] > 1.15 * _MOST_PIXELS:  # a strip: its short side cannot shrink further
        longer = int(size[1] > size[0])
        size[longer] = _MOST_PIXELS // size[1 - longer] // _STEP * _STEP
    return tensor(image.resize((size[0], size[1]), Image.Resampling.BILINEAR))[np.newaxis]


def boxes(likely: FloatArray, size: tuple[int, int]) -> list[Points]:
    """Return the boxes of lines of text, [4, 2] in pixels of the picture, clockwise from the top left.

    Args:
        likely: Probability of text at each pixel of the detector's input, [height, width].
        size: Width and height of the picture.
    """
    scale = np.array([size[0] / likely.shape[1], size[1] / likely.shape[0]])
    runs = find_runs(likely > _TEXT)
    order = np.argsort(runs.labels, kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(runs.labels, minlength=runs.count))[:-1]) if order.size else []
    sums = np.concatenate([np.zeros((len(likely), 1)), np.cumsum(likely, axis=1, dtype=np.float64)], axis=1)
    found: list[Points] = []
    for piece in pieces[:_MOST_BOXES]:
        box = _box(runs, piece, sums)
        if box is not None:
            found.append(box * scale)
    return found


def _box(runs: Runs, piece: np.ndarray[Any, np.dtype[np.intp]], sums: np.ndarray[Any, Any]) -> Points | None:
    """Return the box of a component, or None where it is too small, or the detector is not sure of it.

    Args:
        runs: All runs.
        piece: Those of the component.
        sums: Of the probabilities in each row, up to a column.
    """
    rows, starts, ends = runs.rows[piece], runs.starts[piece], runs.ends[piece]
    sure = (sums[rows, ends] - sums[rows, starts]).sum() / (ends - starts).sum()
    if sure < _SURE:
        return None
    columns, lines = np.concatenate([starts, ends] * 2), np.concatenate([rows, rows, rows + 1, rows + 1])
    rectangle = smallest_rectangle(np.stack([columns, lines], axis=1).astype(np.float64))
    width, height = np.hypot(*(rectangle[1] - rectangle[0])), np.hypot(*(rectangle[3] - rectangle[0]))
    if min(width, height) < _LEAST_SIDE:
        return None
    return grown(rectangle, width * height * _GROW / (2 * (width + height)))
