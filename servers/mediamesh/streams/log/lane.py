"""Commands of many tasks on one connection: what comes up together goes out together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Self, TypeAlias

from redis.exceptions import NoScriptError, ResponseError

from mediamesh.streams.log.link import Link, packed, refused
from mediamesh.wire.errors import Unavailable

__all__ = ["Command", "Lane"]

_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_SECONDS = 10.0

Command: TypeAlias = "tuple[bytes | str | float, ...]"


class _Call:
    """Some commands of one caller, whose replies it gets together."""

    __slots__ = ("answer", "missing", "replies")

    def __init__(self, answer: asyncio.Future[Any], count: int) -> None:
        self.answer = answer
        self.replies: list[Any] = [None] * count
        self.missing = count

    def take(self, place: int, reply: Any) -> None:
        self.replies[place] = reply
        self.missing -= 1
        if not self.missing and not self.answer.done():  # or its caller was cancelled
            self.answer.set_result(self.replies)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Single(_Call):
    """One command, whose reply its caller gets."""

    __slots__ = ()

    def take(self, place: int, reply: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(reply)


_Item: TypeAlias = tuple[bytes, _Call, int]


class Lane:
    """A group commit. A batch is what is queued when the one before is answered; nothing waits for more to come.

    What is queued is bounded by those who call: each waits for its answer.
    """

    def __init__(self, link: Link, *, most: int) -> None:
        self._link = link
        self._most = most
        self._queue: deque[_Item] = deque()
        self._filled = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, *, scripts: Iterable[str], most: int) -> AsyncGenerator[Self]:
        """Yield the lane; whether Valkey is there shows at the first call.

        Args:
            url: Where Valkey is.
            scripts: Lua that is called by its digest.
            most: Most commands in a batch.
        """
        lane = cls(Link(url, scripts=scripts), most=most)
        # Not in a group, which would put what the block raises into a group too.
        running = asyncio.create_task(lane._run())
        try:
            yield lane
        finally:
            running.cancel()
            await asyncio.wait([running])
            lane._fail(lane._queue, Unavailable("The store of streams is closed."))
            await lane._link.close()

    def call(self, *words: bytes | str | float) -> asyncio.Future[Any]:
        """Queue a command.

        Returns:
            What becomes its reply, or ``Unavailable``: then it may have been done, or not.
        """
        answer = self._loop.create_future()
        self._queue.append((packed(words), _Single(answer, 0), 0))
        self._filled.set()
        return answer

    def together(self, *commands: Command) -> asyncio.Future[Any]:
        """Queue some commands, one after the other; a future for each, and one for all of them, would cost more.

        Returns:
            What becomes the list of their replies, or ``Unavailable``: then any may have been done, or not.
        """
        answer = self._loop.create_future()
        if not commands:
            answer.set_result([])
            return answer
        call = _Call(answer, len(commands))
        self._queue += [(packed(words), call, place) for place, words in enumerate(commands)]
        self._filled.set()
        return answer

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            while self._queue:
                await self._exchange(self._batch())
            self._filled.clear()

    def _batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < self._most and size < _BATCH_BYTES:
            item = self._queue.popleft()
            batch.append(item)
            size += len(item[0])
        return batch

    async def _exchange(self, batch: list[_Item], *, again: bool = False) -> None:
        unknown: list[_Item] = []

        def take(index: int, reply: Any) -> None:
            _, call, place = batch[index]
            if not isinstance(reply, ResponseError):
                call.take(place, reply)
            elif isinstance(reply, NoScriptError) and not again:
                unknown.append(batch[index])
            else:
                call.fail(refused(reply))

        try:
            await self._link.exchange([command for command, _, _ in batch], take, seconds=_BATCH_SECONDS, teach=again)
        except Exception as error:  # noqa: BLE001 - those who wait get it, and the next batch has to go on
            self._fail(batch, error)
        except asyncio.CancelledError:
            self._fail(batch, Unavailable("The store of streams is closed."))
            raise
        else:
            if unknown:
                await self._exchange(unknown, again=True)

    @staticmethod
    def _fail(batch: Iterable[_Item], error: Exception) -> None:
        for _, call, _ in batch:
            call.fail(error)
