"""How often the readers of one tail are woken."""

from __future__ import annotations

__all__ = ["Pace"]

# A reader that does not come back, as its connection is full, must not hold up the others: most is enough.
_QUORUM = 0.75
_REST = 1.25
_LONGEST_SECONDS = 0.05
_WEIGHT = 0.25


class Pace:
    """The least time between two wake-ups, from how long the readers took to come back the last times.

    Every wake-up costs a write for each reader. When events come faster than all can be served, the rest of the time
    between rounds lets events gather, so that one write takes several: the loop stays below saturation.

    Attributes:
        seconds: How long a round takes, averaged.
    """

    __slots__ = ("_awaited", "_began", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._awaited = 0
        self._began = 0.0

    def begin(self, now: float, readers: int) -> None:
        """Note that so many readers are woken."""
        self._began = now
        self._awaited = int(readers * _QUORUM) or 1

    def returned(self, now: float) -> None:
        """Note that one of them waits again."""
        if self._awaited == 0:
            return
        self._awaited -= 1
        if self._awaited == 0:
            self.seconds += _WEIGHT * (min(now - self._began, _LONGEST_SECONDS) - self.seconds)

    def due(self) -> float:
        """Return when the next round may begin, in the time of the loop."""
        return self._began + _REST * self.seconds
