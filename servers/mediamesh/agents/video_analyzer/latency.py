"""How long frames take, in memory that does not grow with the video."""

from __future__ import annotations

from itertools import accumulate

__all__ = ["Latency"]

_STEP_SECONDS = 0.001
_STEPS = 10_000


class Latency:
    """Counts times by the millisecond, up to ten seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (_STEPS + 1)
        self._frames = 0

    def add(self, seconds: float) -> None:
        """Note how long a frame took."""
        self._counts[min(_STEPS, max(0, round(seconds / _STEP_SECONDS)))] += 1
        self._frames += 1

    def told(self) -> dict[str, float]:
        """Return the time, in seconds, within which half, 90 % and 99 % of the frames were done; 0 where none was."""
        return {name: self._within(share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}

    def _within(self, share: float) -> float:
        wanted = share * self._frames
        step = next((step for step, count in enumerate(accumulate(self._counts)) if count >= wanted), _STEPS)
        return round(step * _STEP_SECONDS, 3)
