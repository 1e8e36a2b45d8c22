"""Lines of text cut out of a page and laid straight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from mediamesh.agents.document_reader.rectangles import Points

__all__ = ["LINE_HEIGHT", "crop", "lengthwise", "line_width"]

LINE_HEIGHT = 48  # what the recogniser was trained with
_MOST_WIDTH = 3200  # of a line scaled to that height; a longer one is squeezed
_UPRIGHT = 1.5  # a box so much higher than wide has text that runs along its height


def lengthwise(box: Points) -> Points:
    """Return the box with its first side along the text: that of a high box is the left one, read upwards."""
    width, height = np.hypot(*(box[1] - box[0])), np.hypot(*(box[3] - box[0]))
    return np.roll(box, 1, axis=0) if height >= _UPRIGHT * width else box


def line_width(box: Points) -> int:
    """Return the width of what is in a box, scaled to the height of a line."""
    width, height = np.hypot(*(box[1] - box[0])), np.hypot(*(box[3] - box[0]))
    return max(8, min(_MOST_WIDTH, round(float(width * LINE_HEIGHT / height))))


def crop(page: Image.Image, box: Points) -> Image.Image:
    """Return what is in a box, its first side at the top, scaled to the height of a line."""
    right, down = box[1] - box[0], box[3] - box[0]
    width, height = float(np.hypot(*right)), float(np.hypot(*down))
    size = (line_width(box), LINE_HEIGHT)
    if abs(right[1]) < 1e-6 and abs(down[0]) < 1e-6 and right[0] > 0:
        left, top = np.maximum(box[0], 0)
        edges = (float(left), float(top), float(min(box[2][0], page.width)), float(min(box[2][1], page.height)))
        return page.resize(size, Image.Resampling.BICUBIC, box=edges)
    # First at the page's own scale, as an affine transformation averages nothing where it shrinks.
    native = (max(1, round(width)), max(1, round(height)))
    across, along = right / native[0], down / native[1]
    steps = (across[0], along[0], box[0][0], across[1], along[1], box[0][1])
    straight = page.transform(
        native,
        Image.Transform.AFFINE,
        tuple(map(float, steps)),
        Image.Resampling.BICUBIC,
        fillcolor="white",
    )
    return straight.resize(size, Image.Resampling.BICUBIC)
