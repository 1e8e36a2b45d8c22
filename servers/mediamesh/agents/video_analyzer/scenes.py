"""Scene classification: EfficientNet-Lite0, as the image classifier runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import VideoReformatter

from mediamesh.agents.image_classifier.agent import best, class_names
from mediamesh.agents.video_analyzer.analysis import Analysis, Picture
from mediamesh.agents.video_analyzer.pictures import planes_of
from mediamesh.agents.video_analyzer.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agents.video_analyzer.analysis import Array, Facts
    from mediamesh.agents.video_analyzer.video import Frame

__all__ = ["SceneClassification"]

_SIDE = 224
_SHORTER_SIDE = 256  # of which the square takes 0.875
_LONGEST_SIDE = 4096  # a picture that is no more than a line is squeezed, not blown up
_LABELS, _TOLD = 5, 20


class SceneClassification(Analysis):
    """The likeliest of 1000 classes of the middle of the picture.

    Args:
        model: EfficientNet-Lite0's name on the server: ``input`` float32 [N, 3, 224, 224] to ``logits`` [N, 1000].
    """

    input_name = "input"

    def __init__(self, model: str) -> None:
        self.model = model
        self._names = class_names()
        self._reformatter = VideoReformatter()
        self._seen = Tally()

    def prepare(self, frame: Frame) -> Picture:
        """Scale bicubically and cut the middle: red, green, blue, (x - 127) / 128."""
        scale = _SHORTER_SIDE / min(frame.width, frame.height)
        width, height = (min(_LONGEST_SIDE, round(side * scale)) for side in (frame.width, frame.height))
        left, top = (width - _SIDE) // 2, (height - _SIDE) // 2
        tensor = np.empty((1, 3, _SIDE, _SIDE), np.float32)
        planes = planes_of(self._reformatter, frame.decoded, width, height, "BICUBIC")
        for channel, plane in zip(tensor[0], reversed(planes), strict=True):
            channel[:] = plane[top : top + _SIDE, left : left + _SIDE]
        tensor -= 127
        tensor /= 128
        return Picture(frame, tensor)

    def tell(self, picture: Picture, outputs: Mapping[str, Array]) -> Facts:
        """Return five ``labels``, best first."""
        labels = [
            (self._names[index], index, round(probability, 4))
            for index, probability in best(outputs["logits"][0], _LABELS)
        ]
        self._seen.add(picture.time, [(label, probability) for label, _, probability in labels[:1]])
        return {
            "labels": [
                {"label": label, "index": index, "probability": probability} for label, index, probability in labels
            ]
        }

    def summary(self) -> Facts:
        """Return the ``labels`` that were best in most frames."""
        return {"labels": self._seen.told(_TOLD)}
