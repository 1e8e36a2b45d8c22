"""How many requests use a model, so that it is not taken from under them."""

from __future__ import annotations

import asyncio

__all__ = ["Uses"]


class Uses:
    """Counts those inside of its ``with`` block, and tells when the last one has left; for the event loop only."""

    __slots__ = ("_count", "_idle")

    def __init__(self) -> None:
        self._count = 0
        self._idle: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_error: object) -> None:
        self._count -= 1
        if not self._count and self._idle is not None:
            self._idle.set()

    async def ended(self, seconds: float) -> bool:
        """Wait until nobody is inside, at most so many seconds; tell whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                while self._count:
                    self._idle = asyncio.Event()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True
