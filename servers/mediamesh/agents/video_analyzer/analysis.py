"""What an analysis is: from a frame to a tensor, and from a model's answer to a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agents.video_analyzer.video import Frame

    Array = np.ndarray[Any, Any]
    Facts = dict[str, Any]

__all__ = ["Analysis", "Picture"]


class Picture:
    """A frame made small: what is kept of it while a model looks at it.

    Attributes:
        index: Number of the frame.
        time: Seconds from the begin of the video.
        width: Of the frame as displayed, in pixels.
        height: The same.
        tensor: What the model takes, the batch dimension included.
        decoded_at: When it was decoded, or due where that is later, by the monotonic clock.
        outline: Green, uint8, small: what motion is seen by; None where nobody looks.
    """

    __slots__ = ("decoded_at", "height", "index", "outline", "tensor", "time", "width")

    def __init__(self, frame: Frame, tensor: Array, outline: Array | None = None) -> None:
        self.index, self.time, self.width, self.height = frame.index, frame.time, frame.width, frame.height
        self.decoded_at = frame.decoded_at
        self.tensor, self.outline = tensor, outline


class Analysis(ABC):
    """One way to look at the frames of one video.

    Attributes:
        model: The model to run.
        input_name: Its input.
    """

    model: str
    input_name: str

    @abstractmethod
    def prepare(self, frame: Frame) -> Picture:
        """Make a frame small; runs in a thread, for one frame at a time."""

    @abstractmethod
    def tell(self, picture: Picture, outputs: Mapping[str, Array]) -> Facts:
        """Return what the result of a frame says, as JSON; called in the order of the frames."""

    @abstractmethod
    def summary(self) -> Facts:
        """Return what was seen in all frames told of, as JSON."""
