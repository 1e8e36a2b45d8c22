"""Streams in memory: the twin of Valkey for one process, and for tests that want many replicas in one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Self

from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamState
from mediamesh.streams.log.memory_log import MemoryLog
from mediamesh.streams.log.ports import Append, Appended, Entry, News, Outcome, Page, Place, Polled, Stored
from mediamesh.streams.log.refusals import news_not_kept, too_many_streams
from mediamesh.streams.log.snapshot import opened

__all__ = ["Memory", "MemoryStore"]

_BLOCK_SECONDS = 1.5
_POLL_ITEMS = 200


class Memory:
    """What the stores of several replicas share.

    Args:
        news_kept: How many news are kept.
    """

    def __init__(self, *, news_kept: int = 5000) -> None:
        self.logs: dict[str, MemoryLog] = {}
        self.live: dict[str, float] = {}
        self.news: deque[News] = deque(maxlen=news_kept)
        self.told = 0
        self.changed = asyncio.Condition()

    def log(self, stream_id: str) -> MemoryLog | None:
        """Return a stream that has not expired."""
        log = self.logs.get(stream_id)
        if log is not None and log.gone <= time.time():
            del self.logs[stream_id]
            return None
        return log

    def sweep(self) -> None:
        """Forget the streams that have expired."""
        for stream_id in [known for known, log in self.logs.items() if log.gone <= time.time()]:
            del self.logs[stream_id]


class MemoryStore:
    """The log of every stream, in memory."""

    def __init__(
        self,
        memory: Memory,
        *,
        replica: str,
        max_concurrent_streams: int,
        resume_seconds: float,
        buffer_ttl_seconds: float,
        meta_ttl_seconds: float,
    ) -> None:
        self._memory = memory
        self._replica = replica
        self._max_streams = max_concurrent_streams
        self._resume = resume_seconds
        self._buffer_ttl = buffer_ttl_seconds
        self._meta_ttl = meta_ttl_seconds
        self._heard: int | None = None
        self._woken = False
        self._telling: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        memory: Memory | None = None,
        *,
        replica: str,
        max_concurrent_streams: int,
        resume_seconds: float,
        buffer_ttl_seconds: float,
        meta_ttl_seconds: float,
    ) -> AsyncGenerator[Self]:
        """Yield the store over a memory, or over one of its own."""
        store = cls(
            memory or Memory(),
            replica=replica,
            max_concurrent_streams=max_concurrent_streams,
            resume_seconds=resume_seconds,
            buffer_ttl_seconds=buffer_ttl_seconds,
            meta_ttl_seconds=meta_ttl_seconds,
        )
        try:
            yield store
        finally:
            if store._telling:
                await asyncio.wait(store._telling)

    async def check(self) -> None:
        """Memory is always there."""

    async def create(self, stream: Stream, token_digest: str) -> None:
        """See `StreamStore.create`."""
        if len(self._memory.live) >= self._max_streams:
            raise too_many_streams(self._max_streams)
        self._memory.sweep()
        deadline = time.time() + stream.limits.max_duration.ToTimedelta().total_seconds()
        log = MemoryLog(opened(stream), token_digest, deadline, self._resume)
        log.gone = deadline + self._meta_ttl
        self._memory.logs[stream.stream_id] = log
        self._memory.live[stream.stream_id] = deadline
        await self._tell("opened", log)

    async def load(self, stream_ids: Sequence[str]) -> list[Stored]:
        """See `StreamStore.load`."""
        return [log.stored() for log in map(self._memory.log, stream_ids) if log is not None]

    async def page(
        self, workspace_id: str, *, execution_id: str = "", live_only: bool = False, before: str = "", limit: int = 50
    ) -> list[Stored]:
        """See `StreamStore.page`."""
        ids = sorted((known for known in self._memory.logs if not before or known < before), reverse=True)
        return [
            stored
            for stored in await self.load(ids)
            if stored.stream.workspace_id == workspace_id
            and (not execution_id or stored.stream.execution_id == execution_id)
            and (not live_only or stored.stream.state == StreamState.STREAM_STATE_LIVE)
        ][:limit]

    async def take(self, stream_id: str, producer_id: str, epoch: int) -> Appended:
        """See `StreamStore.take`."""
        log = self._memory.log(stream_id)
        if log is None:
            return Appended(outcome=Outcome.GONE)
        taken, changed = log.take(producer_id, epoch)
        if changed:
            await self._tell("taken", log)
        return taken

    async def append(self, append: Append) -> Appended:
        """See `StreamStore.append`."""
        log = self._memory.log(append.stream_id)
        if log is None:
            return Appended(outcome=Outcome.GONE)
        appended = log.append(append)
        if log.standing.ended and self._memory.live.pop(append.stream_id, None) is not None:
            log.buffer_gone = time.time() + self._buffer_ttl
            log.gone = time.time() + self._meta_ttl
            await self._tell("ended", log)
        elif appended.accepted:
            await self._notify()
        return appended

    def begin(self, append: Append, told: Callable[[Appended | Exception], None]) -> None:
        """See `StreamStore.begin`."""

        async def tell() -> None:
            told(await self.append(append))

        task = asyncio.create_task(tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def read(self, stream_id: str, after: int, *, items: int, size: int) -> Page | None:
        """See `StreamStore.read`."""
        log = self._memory.log(stream_id)
        return log.read(after, items, size) if log is not None else None

    async def poll(self, positions: Mapping[str, int]) -> Polled:
        """See `StreamStore.poll`."""
        if self._heard is None:
            self._heard = self._memory.told
        async with self._memory.changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BLOCK_SECONDS):
                    await self._memory.changed.wait_for(lambda: self._woken or self._has_more(positions))
        self._woken = False
        entries = {stream_id: found for stream_id, last in positions.items() if (found := self._after(stream_id, last))}
        news = [told for told in self._memory.news if _number(told.position) > self._heard]
        self._heard = self._memory.told
        return Polled(entries=entries, news=news)

    def _has_more(self, positions: Mapping[str, int]) -> bool:
        return self._heard != self._memory.told or any(self._after(known, last) for known, last in positions.items())

    def _after(self, stream_id: str, last: int) -> Sequence[Entry]:
        log = self._memory.log(stream_id)
        if log is None or not log.entries or next(reversed(log.entries)) <= last:
            return []
        page = log.read(last, _POLL_ITEMS, 1 << 62)
        return page.entries if page is not None else []

    async def wake(self) -> None:
        """See `StreamStore.wake`."""
        self._woken = True
        await self._notify()

    async def news(self, after: str, limit: int) -> list[News]:
        """See `StreamStore.news`."""
        kept = list(self._memory.news)
        if not after:
            return kept[:limit]
        oldest = _number(kept[0].position) if kept else self._memory.told + 1
        number = _number(after)
        known = oldest <= number <= self._memory.told or (number == 0 and len(kept) != self._memory.news.maxlen)
        if not known:
            raise news_not_kept(after)
        return [told for told in kept if _number(told.position) > number][:limit]

    async def newest_news(self) -> str:
        """See `StreamStore.newest_news`."""
        return f"{self._memory.told}-0"

    async def place(self, places: Iterable[Place]) -> None:
        """See `StreamStore.place`."""
        for place in places:
            log = self._memory.log(place.stream_id)
            if log is not None:
                log.place(place)

    async def overdue(self, limit: int) -> list[str]:
        """See `StreamStore.overdue`."""
        for stream_id in [known for known in self._memory.live if self._memory.log(known) is None]:
            del self._memory.live[stream_id]
        due = sorted((deadline, known) for known, deadline in self._memory.live.items() if deadline <= time.time())
        return [known for _, known in due][:limit]

    async def live(self) -> int:
        """See `StreamStore.live`."""
        return len(self._memory.live)

    async def _tell(self, kind: str, log: MemoryLog) -> None:
        self._memory.told += 1
        told = News(position=f"{self._memory.told}-0", kind=kind, stream=log.stored().stream, replica=self._replica)
        self._memory.news.append(told)
        await self._notify()

    async def _notify(self) -> None:
        async with self._memory.changed:
            self._memory.changed.notify_all()


def _number(position: str) -> float:
    """Return the number of news; one that no news has for what is none."""
    number, dash, rest = position.partition("-")
    return int(number) if number.isdecimal() and number.isascii() and (dash, rest) == ("-", "0") else math.inf
