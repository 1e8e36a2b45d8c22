"""The answers of one stream between those who make them and the one who writes them, bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mediamesh.wire.errors import MeshError

__all__ = ["Outbox"]

# Answers of decoupled models that wait to be written; enough for the writer never to wait for the next.
_AHEAD = 16
# Requests in flight before the first answer, which tells how large answers are.
_UNKNOWN = 64


class Outbox:
    """Holds what waits to be written, and keeps back whoever would add too much.

    Requests are let in as long as there is room for their answers too, each taken to be as large as the largest yet;
    a few are before that is known. An answer that is larger than all the room passes when it is alone.

    Args:
        most_requests: Requests in flight, answers not yet written included.
        most_bytes: Bytes of the answers that wait, those expected of the requests in flight included.
    """

    def __init__(self, *, most_requests: int, most_bytes: int) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._ready: deque[bytes | MeshError] = deque()
        self._bytes = 0
        self._largest = 0
        self._running = 0
        self._closed = False
        self._writer: asyncio.Future[None] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._makers: deque[asyncio.Future[None]] = deque()

    async def admit(self) -> None:
        """Wait until one more request may be read, and count it; only one may wait."""
        while self._crowded():
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self._running += 1

    async def space(self) -> None:
        """Wait until one more answer of a decoupled model may be made."""
        while len(self._ready) >= _AHEAD or (self._ready and self._bytes + self._largest > self._most_bytes):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._makers.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake_maker()  # the turn may have been given already
                raise

    def put(self, answer: bytes | MeshError) -> None:
        """Let an answer wait to be written; an error ends the stream."""
        self._ready.append(answer)
        if isinstance(answer, bytes):
            size = len(answer)
            self._bytes += size
            self._largest = max(self._largest, size)
        _wake(self._writer)

    def leave(self) -> None:
        """Count a request out: its last answer was put, or there is none."""
        self._running -= 1
        if not self._crowded():
            _wake(self._reader)

    def close(self) -> None:
        """Let the writer end once everything is written."""
        self._closed = True
        _wake(self._writer)

    async def written(self) -> AsyncIterator[bytes]:
        """Yield what is to be written until the outbox is closed and empty; raises an error that was put."""
        while True:
            while self._ready:
                answer = self._ready.popleft()
                if not isinstance(answer, bytes):
                    raise answer
                yield answer
                self._bytes -= len(answer)
                self._wake_maker()
                if not self._crowded():
                    _wake(self._reader)
            if self._closed:
                return
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def _crowded(self) -> bool:
        in_flight = self._running + len(self._ready)
        if in_flight >= (self._most_requests if self._largest else min(_UNKNOWN, self._most_requests)):
            return True
        return in_flight > 0 and self._bytes + (self._running + 1) * self._largest > self._most_bytes

    def _wake_maker(self) -> None:
        while self._makers:
            turn = self._makers.popleft()
            if not turn.done():
                turn.set_result(None)
                return


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
