"""Appends a producer's events to the log, as many at once as there are, and waits when the policy says so."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import PolicyNotice, PublishWindow
from mediamesh.streams.events import Event
from mediamesh.streams.log.ports import Append, Entry, Outcome
from mediamesh.streams.metrics import COUNTS
from mediamesh.streams.refusals import refused
from mediamesh.wire.errors import Unavailable

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd
    from mediamesh.streams.acks import Acks
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import Appended, StreamStore
    from mediamesh.streams.places import Places
    from mediamesh.streams.settings import Settings

__all__ = ["Committer", "Pending"]

_LOG = logging.getLogger(__name__)
_MOST_ITEMS = 512
_MOST_BYTES = 4 * 1024 * 1024
# What is appended at once: much less than a tail keeps in memory, so that readers need not fetch it from the log.
_GROUP_BYTES = 512 * 1024
_RETRY_SECONDS = 0.1
_TAKEN = (Outcome.STORED, Outcome.FULL)
_FULL_SECONDS = (0.005, 0.25)  # shortest pause before a full buffer is tried again, and the longest


class Pending(NamedTuple):
    """An event that is accepted and not yet stored."""

    sequence: int
    data: bytes
    end: StreamEnd | None
    accepted: float


class Committer:
    """The events of one producer on their way into the log; bounded in items and bytes.

    Mostly the log takes what it is given, and what follows an append is done as its answer comes: to wake a task for
    each event costs more than the event. A group that is not taken at once, or ends the stream, goes to the task that
    `run` is.
    """

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
        self._is_busy = False
        self._refused: tuple[list[Pending], Appended | None] | None = None
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
        if not self._is_busy:
            # What else comes in this turn of the loop goes with it.
            self._is_busy = True
            self._loop.call_soon(self._begin)

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
        """Append no more, and let nobody wait for room."""
        self._stopped = True
        self._queue.clear()
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
            if self._refused is not None:
                (group, answer), self._refused = self._refused, None
                await self._append_all(group, answer)
                self._release(group)
            elif self._finished and not self._is_busy:
                break
            else:
                self._work.clear()
                await self._work.wait()
        if self._failure is not None:
            raise self._failure

    def _begin(self) -> None:
        """Append what is queued; the answer goes on with what was queued meanwhile."""
        if self._stopped:
            return
        group = self._group()
        if group[-1].end is None:
            self._store.begin(self._append_of(group), partial(self._told, group))
        else:
            self._hand_over(group, None)

    def _told(self, group: list[Pending], answer: Appended | Exception) -> None:
        if self._stopped:
            return  # who takes over finds in the log what is there
        if isinstance(answer, Exception):
            self._hand_over(group, None)
            return
        self._note_room(answer)
        if answer.outcome is not Outcome.STORED:
            self._hand_over(group, answer)
            return
        try:
            self._deliver(group, answer)
        except Exception as error:  # noqa: BLE001 - the publication ends with it
            self.finish(error)
        self._release(group)

    def _hand_over(self, group: list[Pending], answer: Appended | None) -> None:
        self._refused = group, answer
        self._work.set()

    def _release(self, group: list[Pending]) -> None:
        """Note that a group is dealt with, and go on with the next one."""
        self._items -= len(group)
        self._bytes -= sum([len(pending.data) for pending in group])
        self._space.set()
        if self._queue:
            self._begin()
            return
        self._is_busy = False
        if self._finished:
            self._work.set()

    def _group(self) -> list[Pending]:
        size = 0
        for count, pending in enumerate(self._queue, 1):
            size += len(pending.data)
            if size >= _GROUP_BYTES:
                group, self._queue = self._queue[:count], self._queue[count:]
                return group
        group, self._queue = self._queue, []
        return group

    async def _append_all(self, group: list[Pending], answer: Appended | None) -> None:
        blocked_at = 0.0
        pause, longest = _FULL_SECONDS
        while group:
            appended, answer = answer or await self._append(group), None
            if appended.outcome not in _TAKEN:
                refused(self._stream_id, group[0].sequence, self._epoch, appended)
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
                self._acks.hold(PolicyNotice(overflow=self._stream.limits.overflow, blocked=True))
            pause = _FULL_SECONDS[0] if done else min(2 * pause, longest)
            began = self._loop.time()
            await self._places.freed(self._stream_id, pause)
            # Readers move event by event: asking for each would keep the store busy with nothing.
            await asyncio.sleep(max(0.0, began + _FULL_SECONDS[0] - self._loop.time()))
        if blocked_at:
            COUNTS.blocked_seconds += self._loop.time() - blocked_at
            self._acks.release()

    def _append_of(self, group: list[Pending]) -> Append:
        return Append(
            stream_id=self._stream_id,
            epoch=self._epoch,
            entries=[Entry(pending.sequence, pending.data) for pending in group],
            end=group[-1].end,
            readers=self._places.changed(self._stream_id) if self._is_low else None,
        )

    async def _append(self, group: list[Pending]) -> Appended:
        append = self._append_of(group)
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
        self._note_room(appended)
        return appended

    def _note_room(self, appended: Appended) -> None:
        self._is_low = (
            appended.outcome is Outcome.FULL
            or appended.room_items <= self._low[0]
            or appended.room_bytes <= self._low[1]
        )

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
