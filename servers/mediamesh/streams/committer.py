"""Appends a producer's events to the log, as many at once as there are, and waits when the policy says so."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import PolicyNotice, PublishWindow
from mediamesh.streams.events import Event
from mediamesh.streams.hub import no_stream
from mediamesh.streams.log.ports import Append, Entry, Outcome
from mediamesh.streams.metrics import COUNTS
from mediamesh.wire.errors import FailedPrecondition, OutOfRange, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd
    from mediamesh.streams.acks import Acks
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import Appended, StreamStore
    from mediamesh.streams.places import Places
    from mediamesh.streams.settings import Settings

__all__ = ["Committer", "Pending", "refused"]

_LOG = logging.getLogger(__name__)
_MOST_ITEMS = 512
_MOST_BYTES = 4 * 1024 * 1024
# What is appended at once: much less than a tail keeps in memory, so that readers need not fetch it from the log.
_GROUP_BYTES = 512 * 1024
_RETRY_SECONDS = 0.1
_FULL_SECONDS = (0.005, 0.25)  # shortest pause before a full buffer is tried again, and the longest


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that is accepted and not yet stored."""

    sequence: int
    data: bytes
    end: StreamEnd | None
    accepted: float


class Committer:
    """The events of one producer on their way into the log; bounded in items and bytes."""

    def __init__(
        self,
        stream: Stream,
        taken: Appended,
        acks: Acks,
        *,
        store: StreamStore,
        hub: Hub,
        places: Places,
        settings: Settings,
    ) -> None:
        self._stream = stream
        self._stream_id = stream.stream_id
        self._epoch = taken.epoch
        self._newest = taken.newest
        self._acks = acks
        self._store = store
        self._hub = hub
        self._places = places
        self._patience = settings.resume_seconds
        self._policy = OverflowPolicy.Name(stream.limits.overflow).removeprefix("OVERFLOW_POLICY_").lower()
        self._low = stream.limits.max_items // 2, stream.limits.max_bytes // 2
        self._is_low = False
        self._queue: list[Pending] = []
        self._items = 0
        self._bytes = 0
        self._finished = False
        self._failure: Exception | None = None
        self._stopped = False
        self._work = asyncio.Event()
        self._space = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def add(self, pending: Pending) -> None:
        """Take an event; ask for `room` before."""
        self._queue.append(pending)
        self._items += 1
        self._bytes += len(pending.data)
        self._work.set()

    async def room(self) -> None:
        """Wait until another event may be added; returns at once when nothing is appended any more."""
        while not self._stopped and (self._items >= _MOST_ITEMS or self._bytes >= _MOST_BYTES):
            self._space.clear()
            await self._space.wait()

    def finish(self, failure: Exception | None = None) -> None:
        """Let `run` return, or raise the failure, once everything is stored."""
        self._finished = True
        self._failure = self._failure or failure
        self._work.set()

    def stop(self) -> None:
        """Let nobody wait for room any more."""
        self._stopped = True
        self._space.set()

    async def run(self) -> None:
        """Append what is added until `finish`.

        Raises:
            FailedPrecondition: another producer has taken over, or the stream has ended.
            NotFound: the stream has expired.
            Unavailable: the store has been away for too long.
            Exception: what `finish` was told.
        """
        while True:
            if not self._queue:
                if self._finished:
                    break
                self._work.clear()
                await self._work.wait()
                continue
            group = self._group()
            await self._append_all(group)
            self._items -= len(group)
            self._bytes -= sum(len(pending.data) for pending in group)
            self._space.set()
        if self._failure is not None:
            raise self._failure

    def _group(self) -> list[Pending]:
        size = 0
        for count, pending in enumerate(self._queue, 1):
            size += len(pending.data)
            if size >= _GROUP_BYTES:
                group, self._queue = self._queue[:count], self._queue[count:]
                return group
        group, self._queue = self._queue, []
        return group

    async def _append_all(self, group: list[Pending]) -> None:
        blocked_at = 0.0
        pause, longest = _FULL_SECONDS
        while group:
            appended = await self._append(group)
            done, group = group[: appended.accepted], group[appended.accepted :]
            if done:
                self._deliver(done, appended)
            if appended.outcome is Outcome.STORED:
                break
            if self._hub.leaving:
                self._queue.clear()  # the producer sends again elsewhere what is not acknowledged
                break
            if not blocked_at:
                blocked_at = self._loop.time()
                self._acks.note(PolicyNotice(overflow=self._stream.limits.overflow, blocked=True))
            pause = _FULL_SECONDS[0] if done else min(2 * pause, longest)
            began = self._loop.time()
            await self._places.freed(self._stream_id, pause)
            # Readers move event by event: asking for each would keep the store busy with nothing.
            await asyncio.sleep(max(0.0, began + _FULL_SECONDS[0] - self._loop.time()))
        if blocked_at:
            COUNTS.blocked_seconds += self._loop.time() - blocked_at
            self._acks.repeat()

    async def _append(self, group: list[Pending]) -> Appended:
        append = Append(
            stream_id=self._stream_id,
            epoch=self._epoch,
            entries=[Entry(pending.sequence, pending.data) for pending in group],
            end=group[-1].end,
            readers=self._places.changed(self._stream_id) if self._is_low else None,
        )
        give_up = self._loop.time() + self._patience
        while True:
            try:
                # Saying it again is safe: the store knows what it has.
                appended = await self._store.append(append)
                break
            except Unavailable as error:
                if self._hub.leaving or self._loop.time() > give_up:
                    raise
                _LOG.debug("%s", error)
            await asyncio.sleep(_RETRY_SECONDS)
        if appended.outcome not in {Outcome.STORED, Outcome.FULL}:
            refused(self._stream_id, group[0].sequence, self._epoch, appended)
        self._is_low = (
            appended.outcome is Outcome.FULL
            or appended.room_items <= self._low[0]
            or appended.room_bytes <= self._low[1]
        )
        return appended

    def _deliver(self, done: list[Pending], appended: Appended) -> None:
        COUNTS.events_in += len(done)
        size = sum(len(pending.data) for pending in done)
        COUNTS.bytes_in += size
        newest = done[-1].sequence
        first, last = appended.dropped or (0, -1)
        if appended.dropped:
            COUNTS.dropped[self._policy] += last - first + 1
            self._acks.note(
                PolicyNotice(
                    overflow=self._stream.limits.overflow, dropped=StreamGap(first_sequence=first, last_sequence=last)
                )
            )
        if self._stream_id in self._hub.tails:
            events = [
                Event(pending.sequence, pending.data, pending.accepted)
                for pending in done
                if not first <= pending.sequence <= last
            ]
            ended = done[-1].end is not None
            self._hub.feed(self._stream_id, events, after=self._newest, newest=newest, ended=ended)
        self._newest = newest
        self._acks.acknowledge(newest, PublishWindow(items=appended.room_items, bytes=appended.room_bytes), size)


def refused(stream_id: str, sequence: int, epoch: int, appended: Appended) -> NoReturn:
    """Raise what an outcome other than STORED and FULL means.

    Args:
        stream_id: The stream.
        sequence: Sequence of the first event that was to be appended; 0 for none.
        epoch: Epoch of the producer.
        appended: What the store said.

    Raises:
        FailedPrecondition: another producer has taken over, or the stream has ended.
        OutOfRange: events before it are missing.
        NotFound: the stream has expired.
    """
    position = {"sequence": sequence} if sequence else {}
    match appended.outcome:
        case Outcome.FENCED:
            COUNTS.fenced += 1
            raise FailedPrecondition(
                f"A producer with epoch {appended.epoch} has taken over the stream {stream_id}; epoch {epoch} may not"
                " publish any more.",
                stream_id=stream_id,
                epoch=appended.epoch,
                **position,
            )
        case Outcome.ENDED:
            raise FailedPrecondition(
                f"The stream {stream_id} ended with event {appended.newest}.",
                stream_id=stream_id,
                last_sequence=appended.newest,
                **position,
            )
        case Outcome.AHEAD:
            raise OutOfRange(
                f"Event {sequence} of the stream {stream_id} comes too early: the next one is {appended.newest + 1}.",
                stream_id=stream_id,
                next_sequence=appended.newest + 1,
                **position,
            )
        case _:
            raise no_stream(stream_id)
