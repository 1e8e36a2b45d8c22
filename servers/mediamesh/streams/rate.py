"""How many events a second are taken of a producer."""

from __future__ import annotations

__all__ = ["TokenBucket"]

_BURST_SECONDS = 0.25


class TokenBucket:
    """Holds a quarter of a second's events at most; who takes more than there are waits for the rest."""

    __slots__ = ("_filled", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _BURST_SECONDS)
        self._tokens = self._most
        self._filled = now

    def take(self, now: float) -> float:
        """Take one, and return for how many seconds to wait before going on; 0 mostly."""
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate) - 1
        self._filled = now
        return -self._tokens / self._rate if self._tokens < 0 else 0.0
