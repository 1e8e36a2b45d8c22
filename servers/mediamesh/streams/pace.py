"""When the readers of one tail are woken again."""

from __future__ import annotations

__all__ = ["Pace"]

# A reader that does not come back, as its connection is full, must not hold up the others: most is enough.
_QUORUM = 0.75
_LONGEST_SECONDS = 0.05


class Pace:
    """Rounds: all who wait are woken, and woken again when most of them are back, or after a while.

    Every wake-up costs a write for each reader. When events come faster than all readers can be served, they gather
    until a round is over, so that one write takes several.

    Attributes:
        latest: When the round is over whoever is back, in the time of the loop.
    """

    __slots__ = ("_awaited", "latest")

    def __init__(self) -> None:
        self._awaited = 0
        self.latest = float("-inf")

    def begin(self, now: float, readers: int) -> None:
        """Note that so many readers are woken."""
        self._awaited = int(readers * _QUORUM) or 1
        self.latest = now + _LONGEST_SECONDS

    def returned(self) -> bool:
        """Note that one of them waits again; true when the round is over with it."""
        if self._awaited == 0:
            return False
        self._awaited -= 1
        return self._awaited == 0

    def is_over(self, now: float) -> bool:
        """Return whether the next round may begin."""
        return self._awaited == 0 or now >= self.latest
