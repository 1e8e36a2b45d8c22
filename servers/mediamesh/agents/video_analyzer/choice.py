"""Which frames are analysed: every one, so many a second, or as many as there is time for."""

from __future__ import annotations

import enum
import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Choice", "Verdict"]

# A frame is left out when its turn comes so many seconds after its time: three frames of 30 a second.
_LATE_SECONDS = 0.1
# However far behind, a frame is analysed for each such stretch of the video.
_LONGEST_GAP_SECONDS = 1.0
_ROUNDING = 1e-6


class Verdict(enum.Enum):
    """What becomes of a frame."""

    TAKEN = enum.auto()
    THINNED = enum.auto()  # beyond max_fps
    LATE = enum.auto()  # there was no time for it


class Choice:
    """Decides frame by frame; one object for one video.

    Args:
        max_fps: Frames taken for each second of the video at most; 0 takes all.
        paced: Whether the video plays at its own speed, and late frames are left out.
        clock: Seconds, monotonic.
    """

    def __init__(self, *, max_fps: float, paced: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_fps, self._paced, self._clock = max_fps, paced, clock
        self._begin: float | None = None
        self._slot = -1
        self._taken = -math.inf

    def wait_for(self, media_time: float) -> float:
        """Return the seconds until a frame of this time is to be shown; 0 when it is due, or nothing is played."""
        if not self._paced:
            return 0.0
        now = self._clock()
        if self._begin is None:
            self._begin = now - media_time
        return max(0.0, self._begin + media_time - now)

    def of(self, media_time: float) -> Verdict:
        """Decide on the next frame.

        Args:
            media_time: Seconds from the begin of the video.
        """
        slot = math.floor(media_time * self._max_fps + _ROUNDING)
        if self._max_fps and slot <= self._slot:
            return Verdict.THINNED
        if self._is_late(media_time) and media_time - self._taken < _LONGEST_GAP_SECONDS:
            return Verdict.LATE
        self._slot, self._taken = slot, media_time
        return Verdict.TAKEN

    def _is_late(self, media_time: float) -> bool:
        return self._paced and self._begin is not None and self._clock() > self._begin + media_time + _LATE_SECONDS
