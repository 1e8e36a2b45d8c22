"""Object detection: NanoDet, whose recipe is https://github.com/RangiLyu/nanodet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import VideoReformatter

from mediamesh.agents.video_analyzer.analysis import Analysis, Picture
from mediamesh.agents.video_analyzer.coco import NAMES
from mediamesh.agents.video_analyzer.pictures import planes_of
from mediamesh.agents.video_analyzer.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agents.video_analyzer.analysis import Array, Facts
    from mediamesh.agents.video_analyzer.video import Frame

__all__ = ["ObjectDetection", "found_in"]

_SIDE = 416
_MEANS = np.array([103.53, 116.28, 123.675], np.float32)  # blue, green, red
_SCALES = 1 / np.array([57.375, 57.12, 58.395], np.float32)
_STRIDES = (8, 16, 32)
_SCORES, _SIDES = ("Identity", "Identity_1", "Identity_2"), ("Identity_3", "Identity_4", "Identity_5")
_BINS = np.arange(11, dtype=np.float32)
_OVERLAP = 0.5
_MOST_OBJECTS = 100


class ObjectDetection(Analysis):
    """Things of 80 kinds, with their boxes.

    Args:
        model: NanoDet's name on the server: ``images`` float32 [N, 3, 416, 416] to scores and distances.
        min_score: Least score of an object.
    """

    input_name = "images"

    def __init__(self, model: str, *, min_score: float) -> None:
        self.model, self._min_score = model, min_score
        self._reformatter = VideoReformatter()
        self._seen = Tally()

    def prepare(self, frame: Frame) -> Picture:
        """Put the frame at the top left of a square, the rest black; blue, green, red, normalised."""
        width, height = _fitted(frame.width, frame.height)
        planes = planes_of(self._reformatter, frame.decoded, width, height, "AREA")
        tensor = np.empty((1, 3, _SIDE, _SIDE), np.float32)
        for channel, plane, mean, scale in zip(tensor[0], planes, _MEANS, _SCALES, strict=True):
            channel[:height, width:] = channel[height:] = -mean * scale
            part = channel[:height, :width]
            np.multiply(plane, scale, out=part, dtype=np.float32)
            part -= mean * scale
        return Picture(frame, tensor)

    def tell(self, picture: Picture, outputs: Mapping[str, Array]) -> Facts:
        """Return ``objects``, best first."""
        objects = found_in(outputs, picture.width, picture.height, min_score=self._min_score)
        self._seen.add(picture.time, [(one["label"], one["score"]) for one in objects])
        return {"objects": objects}

    def summary(self) -> Facts:
        """Return the kinds of ``objects``."""
        return {"objects": self._seen.told()}


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = _SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def found_in(outputs: Mapping[str, Array], width: int, height: int, *, min_score: float) -> list[Facts]:
    """Return the objects of one frame, best first.

    A cell of the three grids gives 80 scores and, for each of left, top, right and bottom, a distribution over 0 to 10
    strides, whose mean is how far that side of the box is from the centre of the cell.

    Args:
        outputs: The model's answer for one picture: scores [1, cells, 80], distances [1, cells, 44] by grid.
        width: Of the frame, in pixels; boxes are in those.
        height: The same.
        min_score: Least score.
    """
    scores = np.concatenate([outputs[name][0] for name in _SCORES])
    best = scores.max(axis=1)
    (cells,) = np.nonzero(best >= min_score)
    if not len(cells):
        return []
    cells = cells[np.argsort(-best[cells], kind="stable")][: 4 * _MOST_OBJECTS]
    kinds = scores[cells].argmax(axis=1)
    boxes = _boxes(outputs, cells) * (max(width, height) / _SIDE)
    boxes = boxes.clip(0, [width, height, width, height])
    return [
        _object(int(kinds[one]), float(best[cells[one]]), boxes[one]) for one in _distinct(boxes, kinds)[:_MOST_OBJECTS]
    ]


def _object(kind: int, score: float, box: Array) -> Facts:
    left, top, right, bottom = (round(float(side), 1) for side in box)
    return {
        "label": NAMES[kind],
        "class": kind,
        "score": round(score, 4),
        "box": [left, top, round(right - left, 1), round(bottom - top, 1)],
    }


def _centres() -> tuple[Array, Array]:
    """Return for every cell of the three grids its centre [cells, 2] and its stride [cells, 1]."""
    centres, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: _SIDE // stride, : _SIDE // stride]
        centres.append((np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * stride)
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


_CENTRES, _CELL_STRIDES = _centres()


def _boxes(outputs: Mapping[str, Array], cells: Array) -> Array:
    """Return left, top, right, bottom of the boxes of some cells, in pixels of the square: [cells, 4]."""
    bins = np.concatenate([outputs[name][0] for name in _SIDES])[cells].reshape(-1, 4, len(_BINS))
    shares = np.exp(bins - bins.max(axis=2, keepdims=True))
    distances = (shares @ _BINS) / shares.sum(axis=2) * _CELL_STRIDES[cells]
    centres = _CENTRES[cells]
    return np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)


def _distinct(boxes: Array, kinds: Array) -> list[int]:
    """Return which boxes stay when each hides those after it of its kind that it overlaps by half (IoU)."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left):
        one, left = int(left[0]), left[1:]
        kept.append(one)
        corners = np.minimum(boxes[one, 2:], boxes[left, 2:]) - np.maximum(boxes[one, :2], boxes[left, :2])
        common = corners.clip(0).prod(axis=1)
        union = areas[one] + areas[left] - common
        left = left[(kinds[left] != kinds[one]) | (common < _OVERLAP * union)]
    return kept
