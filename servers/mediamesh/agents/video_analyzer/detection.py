"""Object detection: NanoDet (https://github.com/RangiLyu/nanodet), as the model store arranges it for servers."""

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

_SIDE, _STEP = 416, 32
_OVERLAP = 0.5


class ObjectDetection(Analysis):
    """Things of 80 kinds, with their boxes.

    Args:
        model: NanoDet's name on the server: ``frames`` uint8 [N, 3, H, W] to ``objects`` [N, K, 6].
        min_score: Least score of an object.
    """

    input_name = "frames"

    def __init__(self, model: str, *, min_score: float) -> None:
        self.model, self._min_score = model, min_score
        self._reformatter = VideoReformatter()
        self._seen = Tally()

    def prepare(self, frame: Frame) -> Picture:
        """Put the frame, its longer side 416 pixels, at the top left of black; blue, green, red."""
        width, height = _fitted(frame.width, frame.height)
        tensor = np.zeros((1, 3, -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP), np.uint8)
        for channel, plane in enumerate(planes_of(self._reformatter, frame.decoded, width, height, "AREA")):
            tensor[0, channel, :height, :width] = plane
        return Picture(frame, tensor)

    def tell(self, picture: Picture, outputs: Mapping[str, Array]) -> Facts:
        """Return ``objects``, best first."""
        objects = found_in(outputs["objects"][0], picture.width, picture.height, min_score=self._min_score)
        self._seen.add(picture.time, [(one["label"], one["score"]) for one in objects])
        return {"objects": objects}

    def summary(self) -> Facts:
        """Return the kinds of ``objects``."""
        return {"objects": self._seen.told()}


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = _SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def found_in(candidates: Array, width: int, height: int, *, min_score: float) -> list[Facts]:
    """Return the objects of one frame, best first: each hides those after it of its kind that overlap it by half (IoU).

    Args:
        candidates: The model's answer [K, 6]: left, top, right, bottom in pixels of the tensor, score, class.
        width: Of the frame, in pixels; boxes are in those.
        height: The same.
        min_score: Least score.
    """
    left = candidates[candidates[:, 4] >= min_score]
    boxes, scores, kinds = left[:, :4] * (max(width, height) / _SIDE), left[:, 4], left[:, 5].astype(int)
    boxes = boxes.clip(0, [width, height, width, height])
    return [_object(int(kinds[one]), float(scores[one]), boxes[one]) for one in _distinct(boxes, kinds)]


def _object(kind: int, score: float, box: Array) -> Facts:
    left, top, right, bottom = (round(float(side), 1) for side in box)
    return {
        "label": NAMES[kind],
        "class": kind,
        "score": round(score, 4),
        "box": [left, top, round(right - left, 1), round(bottom - top, 1)],
    }


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
