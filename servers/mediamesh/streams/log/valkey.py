"""Streams in Valkey: a Valkey stream for the events of each, a hash for where it stands, one for who reads it.

Keys: ``stream:buf:{ID}``, ``stream:meta:{ID}`` and ``stream:readers:{ID}`` (one slot in a cluster); ``streams:live``,
all that live by their deadline; ``streams:of:WORKSPACE``, ids in order; ``streams:news``; ``streams:wake:REPLICA``,
which ends a poll. The id of an entry is ``SEQUENCE-0``.

What is about more than one stream is done in steps, and what a crash leaves undone somebody else does: before a stream
is created, and before it ends, it is made due in ``streams:live``, and `ValkeyStore.overdue` looks after what is due.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from mediamesh.api.stream.v1.stream_pb2 import Stream
from mediamesh.streams.log.keys import LIVE, NEWS, about, call_of, meta_of, wake_of
from mediamesh.streams.log.lane import Command, Lane
from mediamesh.streams.log.packing import (
    END_MARK,
    NEW,
    Rules,
    Situation,
    appended_of,
    news_of,
    page_of,
    rules_of,
    stored_from,
)
from mediamesh.streams.log.poller import Poller
from mediamesh.streams.log.ports import Append, Appended, News, Outcome, Page, Place, Polled, Stored
from mediamesh.streams.log.refusals import news_not_kept, too_many_streams
from mediamesh.streams.log.registry import Registry
from mediamesh.streams.log.scripts import ADMIT, APPEND, DUE, HASTEN, OPEN, PLACE, READ, SCRIPTS, TAKE, TELL
from mediamesh.streams.log.snapshot import Standing, opened, stored_of

__all__ = ["ValkeyStore"]

_APPENDS_AT_ONCE = 1000
_READS_AT_ONCE = 64
# How long a stream has to be created, or its end to be told, before somebody else looks after it.
_CREATE_MS = 30_000
_END_MS = 5_000
_MAILBOX_MS = 60_000
_BEFORE_ALL = "0-0"
_LAST_ID = (1 << 64) - 1
_POSITION = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)

_OPEN, _TAKE, _APPEND, _PLACE, _READ = (call_of(script, keys=3) for script in (OPEN, TAKE, APPEND, PLACE, READ))
_ADMIT, _HASTEN, _DUE = (call_of(script, keys=1) for script in (ADMIT, HASTEN, DUE))
_TELL = call_of(TELL, keys=2)


class ValkeyStore:
    """The log of every stream, in Valkey."""

    def __init__(
        self,
        writes: Lane,
        reads: Lane,
        poller: Poller,
        *,
        replica: str,
        max_concurrent_streams: int,
        rules: Rules,
        news_kept: int,
    ) -> None:
        self._writes = writes
        self._reads = reads
        self._poller = poller
        self._registry = Registry(reads, meta_ttl_ms=rules.meta_ttl)
        self._replica = replica
        self._max_streams = max_concurrent_streams
        self._rules = rules
        self._news_kept = news_kept

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        replica: str,
        max_concurrent_streams: int,
        resume_seconds: float,
        buffer_ttl_seconds: float,
        meta_ttl_seconds: float,
        news_kept: int = 5000,
    ) -> AsyncGenerator[Self]:
        """Yield the store; whether Valkey is there shows at the first use."""
        rules = Rules(
            resume=round(resume_seconds * 1000),
            buffer_ttl=round(buffer_ttl_seconds * 1000),
            meta_ttl=round(meta_ttl_seconds * 1000),
        )
        poller = Poller(url, replica=replica)
        async with (
            contextlib.AsyncExitStack() as stack,
            Lane.open(url, scripts=SCRIPTS, most=_APPENDS_AT_ONCE) as writes,
            Lane.open(url, scripts=SCRIPTS, most=_READS_AT_ONCE) as reads,
        ):
            stack.push_async_callback(poller.close)
            yield cls(
                writes,
                reads,
                poller,
                replica=replica,
                max_concurrent_streams=max_concurrent_streams,
                rules=rules,
                news_kept=news_kept,
            )

    async def check(self) -> None:
        """See `StreamStore.check`."""
        await self._writes.call("PING")

    async def create(self, stream: Stream, token_digest: str) -> None:
        """See `StreamStore.create`."""
        stream_id, head = stream.stream_id, opened(stream)
        now = await self._writes.call(*_ADMIT, LIVE, stream_id, self._max_streams, _CREATE_MS)
        if now is None:
            raise too_many_streams(self._max_streams)
        deadline = now + stream.limits.max_duration.ToMilliseconds()
        rules = rules_of(head, deadline, self._rules)
        fresh = stored_of(head, token_digest, Standing(), oldest=0, readable=True)
        # In this order on one connection: whoever hears of the stream finds it.
        await self._writes.together(
            (*_OPEN, *about(stream_id), head.SerializeToString(), token_digest, NEW, rules),
            ("ZADD", LIVE, deadline, stream_id),
            self._news("opened", fresh.stream),
            *self._registry.index(stream.workspace_id, stream_id),
        )
        await self._registry.tidy(stream.workspace_id)

    async def load(self, stream_ids: Sequence[str]) -> list[Stored]:
        """See `StreamStore.load`."""
        return await self._registry.load(stream_ids)

    async def page(
        self, workspace_id: str, *, execution_id: str = "", live_only: bool = False, before: str = "", limit: int = 50
    ) -> list[Stored]:
        """See `StreamStore.page`."""
        return await self._registry.page(
            workspace_id, execution_id=execution_id, live_only=live_only, before=before, limit=limit
        )

    async def take(self, stream_id: str, producer_id: str, epoch: int) -> Appended:
        """See `StreamStore.take`."""
        answer, fields = await self._writes.together(
            (*_TAKE, *about(stream_id), producer_id, epoch), ("HGETALL", meta_of(stream_id))
        )
        taken, changed = appended_of(answer)
        if changed and (stored := stored_from(fields)):
            await self._writes.call(*self._news("taken", stored.stream))
        return taken

    async def append(self, append: Append) -> Appended:
        """See `StreamStore.append`."""
        if append.end is None:
            return appended_of(await self._writes.call(*self._appending(append)))[0]
        hasten = (*_HASTEN, LIVE, append.stream_id, _END_MS)
        _, answer = await self._writes.together(hasten, self._appending(append))
        appended = appended_of(answer)[0]
        if appended.outcome in {Outcome.STORED, Outcome.ENDED}:
            await self._tell_end(append.stream_id)
        return appended

    def begin(self, append: Append, told: Callable[[Appended | Exception], None]) -> None:
        """See `StreamStore.begin`."""

        def answered(answer: Any) -> None:
            told(answer if isinstance(answer, Exception) else appended_of(answer)[0])

        self._writes.tell(answered, *self._appending(append))

    def _appending(self, append: Append) -> Command:
        entries, end, readers = append.entries, append.end, append.readers
        return (
            *_APPEND,
            *about(append.stream_id),
            append.epoch,
            entries[0].sequence if entries else 0,
            len(entries),
            b"" if end is None else END_MARK + end.SerializeToString(),
            *[entry.data for entry in entries],
            *([word for reader in readers.items() for word in reader] if readers else ()),
        )

    async def read(self, stream_id: str, after: int, *, items: int, size: int) -> Page | None:
        """See `StreamStore.read`."""
        start = f"{min(after + 1, _LAST_ID)}-0"
        answer = await self._reads.call(*_READ, *about(stream_id), start, items, size)
        return page_of(answer) if answer is not None else None

    async def poll(self, positions: Mapping[str, int]) -> Polled:
        """See `StreamStore.poll`."""
        if not self._poller.heard:
            self._poller.heard = await self.newest_news()
        return await self._poller.poll(positions)

    async def wake(self) -> None:
        """See `StreamStore.wake`."""
        if self._poller.awake:
            return
        self._poller.awake = True
        mailbox = wake_of(self._replica)
        await self._writes.together(
            ("XADD", mailbox, "MAXLEN", 1, "*", "w", ""),
            ("PEXPIRE", mailbox, _MAILBOX_MS),
        )

    async def news(self, after: str, limit: int) -> list[News]:
        """See `StreamStore.news`."""
        if not after:
            return news_of(await self._reads.call("XRANGE", NEWS, "-", "+", "COUNT", limit))
        if not _POSITION.fullmatch(after):
            raise news_not_kept(after)
        there, length, found = await self._reads.together(
            ("XRANGE", NEWS, after, after),
            ("XLEN", NEWS),
            ("XRANGE", NEWS, f"({after}", "+", "COUNT", limit),
        )
        if not there and not (after == _BEFORE_ALL and length < self._news_kept):
            raise news_not_kept(after)
        return news_of(found)

    async def newest_news(self) -> str:
        """See `StreamStore.newest_news`."""
        newest = await self._reads.call("XREVRANGE", NEWS, "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else _BEFORE_ALL

    async def place(self, places: Iterable[Place]) -> None:
        """See `StreamStore.place`."""
        by_stream: dict[str, list[str | int]] = {}
        for place in places:
            words = by_stream.setdefault(place.stream_id, [])
            words += (place.subscriber_id, place.position, round(place.seconds * 1000))
        await self._writes.together(*((*_PLACE, *about(stream_id), *words) for stream_id, words in by_stream.items()))

    async def overdue(self, limit: int) -> list[str]:
        """See `StreamStore.overdue`."""
        call = self._writes.call
        now, due = await call(*_DUE, LIVE, limit)
        found = await self._writes.together(*(("HMGET", meta_of(known.decode()), "now", "rules") for known in due))
        overdue = []
        for stream_id, fields in zip((known.decode() for known in due), found, strict=True):
            situation = Situation.of(*fields) if fields[0] is not None else None
            if situation is None:
                # It was admitted and never created, or expired while nobody looked.
                await call("ZREM", LIVE, stream_id)
            elif situation.ended:
                await self._tell_end(stream_id)
            elif situation.deadline > now:
                await call("ZADD", LIVE, "XX", situation.deadline, stream_id)
            else:
                overdue.append(stream_id)
        return overdue

    async def live(self) -> int:
        """See `StreamStore.live`."""
        return int(await self._reads.call("ZCARD", LIVE))

    def _news(self, kind: str, stream: Stream) -> Command:
        spelled = stream.SerializeToString()
        return ("XADD", NEWS, "MAXLEN", self._news_kept, "*", "k", kind, "s", spelled, "r", self._replica)

    async def _tell_end(self, stream_id: str) -> None:
        for stored in await self.load([stream_id]):
            if not stored.stream.HasField("end"):
                continue  # what was to end it had another event's sequence
            stream = stored.stream.SerializeToString()
            await self._writes.call(*_TELL, LIVE, NEWS, stream_id, self._news_kept, stream, self._replica)
