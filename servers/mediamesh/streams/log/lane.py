"""Commands of many tasks on one connection: what comes up together goes out together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Protocol, Self, TypeAlias

from redis.exceptions import NoScriptError, ResponseError

from mediamesh.streams.log.link import Link, packed, refused
from mediamesh.wire.errors import Unavailable

__all__ = ["Command", "Lane"]

_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_SECONDS = 10.0

Command: TypeAlias = "tuple[bytes | str | float, ...]"


class _Waiter(Protocol):
    """Who gets replies. When a batch breaks off, those who have theirs are told of it too, and mind it not."""

    def take(self, place: int, reply: Any, /) -> None: ...

    def fail(self, error: Exception, /) -> None: ...


class _One:
    """Waits for one reply."""

    __slots__ = ("answer",)

    def __init__(self, answer: asyncio.Future[Any]) -> None:
        self.answer = answer

    def take(self, _place: int, reply: Any) -> None:
        if not self.answer.done():  # or its caller was cancelled
            self.answer.set_result(reply)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Several(_One):
    """Waits for replies that are handed over together."""

    __slots__ = ("missing", "replies")

    def __init__(self, answer: asyncio.Future[Any], count: int) -> None:
        super().__init__(answer)
        self.replies: list[Any] = [None] * count
        self.missing = count

    def take(self, place: int, reply: Any) -> None:
        self.replies[place] = reply
        self.missing -= 1
        if not self.missing:
            super().take(place, self.replies)


class _Told:
    """Is called with the reply, or the error."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[Any], None]) -> None:
        self._told: Callable[[Any], None] | None = told

    def take(self, _place: int, reply: Any) -> None:
        # A batch of which some was answered fails as a whole; who was told is told no more.
        told, self._told = self._told, None
        if told is not None:
            told(reply)

    def fail(self, error: Exception) -> None:
        self.take(0, error)


_Item: TypeAlias = tuple[bytes, _Waiter, int]


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
        self._queue.append((packed(words), _One(answer), 0))
        self._filled.set()
        return answer

    def tell(self, told: Callable[[Any], None], *words: bytes | str | float) -> None:
        """Queue a command, and be called with its reply, or with ``Unavailable``; what is called must not raise."""
        self._queue.append((packed(words), _Told(told), 0))
        self._filled.set()

    def together(self, *commands: Command) -> asyncio.Future[Any]:
        """Queue some commands, one after the other; a future for each, and one for all of them, would cost more.

        Returns:
            What becomes the list of their replies, or ``Unavailable``: then any may have been done, or not.
        """
        answer = self._loop.create_future()
        if not commands:
            answer.set_result([])
            return answer
        waiter = _Several(answer, len(commands))
        self._queue += [(packed(words), waiter, place) for place, words in enumerate(commands)]
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
            _, waiter, place = batch[index]
            if not isinstance(reply, ResponseError):
                waiter.take(place, reply)
            elif isinstance(reply, NoScriptError) and not again:
                unknown.append(batch[index])
            else:
                waiter.fail(refused(reply))

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
        for _, waiter, _ in batch:
            waiter.fail(error)
