"""Memory that is shared by all calls of the process: who needs more than is left waits, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Budget"]


class Budget:
    """A number of bytes, of which calls reserve parts."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size_bytes: int) -> AsyncGenerator[None]:
        """Hold ``size_bytes``, or the whole budget if that is less, for as long as the block lasts.

        Never reserve inside of a block that holds a part of the same budget: all could wait for each other.
        """
        size = min(size_bytes, self.capacity_bytes)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self.free_bytes:
            self.free_bytes -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)  # it was granted in the moment in which the caller left
            else:
                with suppress(ValueError):  # it was passed over already, by who left in the same moment
                    self._waiting.remove((size, turn))
                self._grant()  # whoever stood behind may fit
            raise

    def _give(self, size: int) -> None:
        self.free_bytes += size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free_bytes:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.free_bytes -= size
                turn.set_result(None)
