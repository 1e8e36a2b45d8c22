"""The chunks that go to an agent: taken from the pipes as it takes them, and kept as long as it may start anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mediamesh.api.agent.v1 import agent_service_pb2
from mediamesh.api.agent.v1.agent_service_pb2 import RunRequest
from mediamesh.wire.errors import StreamInterrupted

if TYPE_CHECKING:
    from mediamesh.orchestrator.execution.inbox import Bounds, Inbox, Pipe

__all__ = ["Feed"]


class Feed:
    """The stream inputs of one node, in one order for all of its tries; use it as a block around them.

    One frame waits here beyond those in the pipes: the agent's flow control is what sets the pace.

    Attributes:
        failure: Why a stream broke off before its end; None while none did.

    Args:
        inbox: Where the pipes are.
        bounds: How much of what was sent is kept for another try.
    """

    def __init__(self, inbox: Inbox, bounds: Bounds) -> None:
        self.failure: StreamInterrupted | None = None
        self._pipes = inbox.pipes
        self._bounds = bounds
        self._open = len(inbox.pipes)
        self._kept: list[RunRequest] = []
        self._bytes = 0
        self._dropped = 0
        self._cursor = 0
        self._try = 0
        self._changed = asyncio.Condition()
        self._readers = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._readers.__aenter__()
        self._tasks = [self._readers.create_task(self._read(pin, pipe)) for pin, pipe in self._pipes.items()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.end_try()
        finally:
            for task in self._tasks:
                task.cancel()
            # The group would wrap what it is given; it has no errors of its own.
            await self._readers.__aexit__(None, None, None)

    @property
    def is_whole(self) -> bool:
        """Whether everything that was sent can be sent again."""
        return self._dropped == 0

    def forget(self) -> None:
        """Keep nothing any more: there will be no other try."""
        self._bounds = type(self._bounds)(0, 0)

    def frames(self) -> AsyncIterator[RunRequest]:
        """Return all frames as a new try, which ends an earlier one, until each stream has ended.

        Raises:
            StreamInterrupted: a producer failed.
        """
        # The try counts from here, not from its first frame: one that is over may be asked for that one yet.
        self._try += 1
        self._cursor = self._dropped
        return self._frames(self._try)

    async def end_try(self) -> None:
        """Give the last try nothing more: grpc goes on asking for frames when a call has failed."""
        self._try += 1
        async with self._changed:
            self._changed.notify_all()

    async def _frames(self, this: int) -> AsyncIterator[RunRequest]:
        while (frame := await self._next(this)) is not None:
            yield frame

    async def _next(self, this: int) -> RunRequest | None:
        async with self._changed:
            while self._try == this and self._cursor - self._dropped == len(self._kept):
                if self.failure is not None:
                    raise self.failure
                if not self._open:
                    return None
                await self._changed.wait()
            if self._try != this:
                return None
            frame = self._kept[self._cursor - self._dropped]
            self._cursor += 1
            self._trim()
            self._changed.notify_all()
            return frame

    def _trim(self) -> None:
        """Keep nothing of what was sent when it has become too much."""
        if self._cursor - self._dropped > self._bounds.chunks or self._bytes > self._bounds.bytes:
            del self._kept[: self._cursor - self._dropped]
            self._dropped = self._cursor
            self._bytes = sum(frame.ByteSize() for frame in self._kept)

    async def _read(self, pin: str, pipe: Pipe) -> None:
        try:
            while (chunk := await pipe.get()) is not None:
                await self._put(RunRequest(chunk=agent_service_pb2.PinChunk(pin=pin, chunk=chunk)))
            await self._put(RunRequest(end=agent_service_pb2.PinEnd(pin=pin)), last=True)
        except StreamInterrupted as error:
            async with self._changed:
                self.failure = self.failure or error
                self._changed.notify_all()

    async def _put(self, frame: RunRequest, *, last: bool = False) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._cursor - self._dropped == len(self._kept))
            self._kept.append(frame)
            self._bytes += frame.ByteSize()
            self._open -= last
            self._changed.notify_all()
