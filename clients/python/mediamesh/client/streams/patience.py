"""How failures are borne: which of them pass, and how long to wait before the next try."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

from mediamesh.wire.errors import Cancelled, MeshError, StreamInterrupted, Unavailable

__all__ = ["Patience", "passes"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


def passes(error: MeshError) -> bool:
    """Return whether the same call may succeed when it is made again: a connection broke, or a server went away.

    What a server of the mesh says about the request itself is final.
    """
    if isinstance(error, StreamInterrupted | Unavailable | Cancelled):
        return True
    # UNKNOWN, or INTERNAL without a word of ours: how proxies and gRPC itself report a connection that broke. A server
    # of the mesh that failed names the trace.
    return type(error) is MeshError and not error.metadata


class Patience:
    """Bears failures in a row, with pauses that double from 0.1 s to 5 s, with jitter.

    Args:
        seconds: How long to go on without a word from any server.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = _FIRST_PAUSE_SECONDS
        self._heard = monotonic()

    def heard(self) -> None:
        """Take note that a server answered: whatever fails next is the first failure."""
        self._pause = _FIRST_PAUSE_SECONDS
        self._heard = monotonic()

    async def bear(self, failure: MeshError) -> None:
        """Wait before the next try.

        Raises:
            MeshError: the failure, once the patience is at its end.
        """
        if monotonic() - self._heard > self._seconds:
            raise failure
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(max(pause, failure.retry_after or 0.0))
