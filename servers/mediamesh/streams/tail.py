"""The newest events of one stream in memory, for all its subscribers on this replica."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from mediamesh.streams.events import Batch, Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mediamesh.streams.log.ports import Stored

__all__ = ["BATCH_BYTES", "Room", "Tail", "Waiter", "whole"]

BATCH_BYTES = 256 * 1024
"""Bytes of events in one batch, beyond which none is added; a reader that stops holds one batch at most."""
_RING_ITEMS = 256
_RING_BYTES = 2 * 1024 * 1024
# A reader of media falls out of two megabytes in a moment, and reading the log takes longer still. So a ring may be
# larger, as long as all rings together are not.
_MOST_RING_BYTES = 16 * 1024 * 1024
_ALL_RINGS_BYTES = 64 * 1024 * 1024
_CACHED_BATCHES = 16
# Readers that are served at once; when most of them are back the next ones are. gRPC tells in order what it has done:
# with a thousand writes under way what a producer sends is read after them, and nothing gathers.
_SERVED_AT_ONCE = 32
_LEFT_TO_COME = 8
# Who takes longer is slow, and waited for no more.
_SLOW_SECONDS = 0.2


class Room:
    """How many bytes all rings of a process hold.

    Attributes:
        used: The bytes.
    """

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0


class Waiter:
    """Somebody who waits for a tail, again and again; one future at a time."""

    __slots__ = ("future", "is_slow", "served")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] | None = None
        self.served = math.inf
        self.is_slow = False

    def wake(self) -> None:
        """Let it go on; nothing happens when it does not wait."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Tail:
    """The ring of the newest events, bounded in items and bytes, and what is known of the end.

    All events after ``floor`` up to ``newest`` that were not dropped are in the ring. Who is before the floor reads the
    log.

    Attributes:
        stream_id: The stream.
        newest: Sequence of the newest event, dropped ones counted.
        ended: Whether the newest is the last.
        invalidated: Whether the store has lost some of the events, and who reads is to subscribe anew.
        fed: When this replica last appended to the stream, by the clock of the loop.
        checked: When the store was last asked how the stream stands, likewise.
        users: How many hold the tail.
    """

    def __init__(self, stored: Stored, loop: asyncio.AbstractEventLoop, room: Room) -> None:
        self.stream_id = stored.stream.stream_id
        self.newest = stored.stream.last_sequence
        self.floor = self.newest
        self.ended = stored.stream.HasField("end")
        self.invalidated = False
        self.fed = float("-inf")
        self.checked = loop.time()
        self.users = 0
        self._loop = loop
        self._room = room
        self._ring: deque[Event] = deque()
        self._bytes = 0
        self._batches: dict[int, Batch] = {}
        self._waiting: set[Waiter] = set()
        self._queue: deque[Waiter] = deque()
        self._under_way: dict[Waiter, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def push(self, events: Iterable[Event], *, after: int, newest: int, ended: bool = False) -> None:
        """Add events: all that there are after a position up to the newest. What is known already changes nothing."""
        if after > self.newest:
            self._forget(after)
        fresh = False
        for event in events:
            if event.sequence > self.newest:
                self._ring.append(event)
                self._grow(len(event.frame))
                fresh = True
        self.newest = max(self.newest, newest)
        ends = ended and not self.ended
        self.ended = self.ended or ended
        if fresh:
            self._trim()
        if fresh or ends:
            self._batches.clear()
            self.wake()

    def advance(self, newest: int, *, ended: bool) -> None:
        """Note how the stream stands, events unseen."""
        if newest > self.newest:
            self._forget(newest)
            self.newest = newest
            self.wake()
        if ended and not self.ended:
            self.ended = True
            self.wake()

    def after(self, position: int) -> Batch | None:
        """Return some events after a position, not before the floor; None when there are none that were not dropped."""
        batch = self._batches.get(position)
        if batch is None:
            events = self._from(position)
            if not events:
                return None
            if len(self._batches) >= _CACHED_BATCHES:
                self._batches.clear()
            batch = self._batches[position] = Batch(events)
        return batch

    def _from(self, position: int) -> list[Event]:
        ring = self._ring
        if not ring or ring[-1].sequence <= position:
            return []
        if ring[-1].sequence == position + 1:
            return [ring[-1]]
        start = position + 1 - ring[0].sequence
        # Without holes the place is known; events that were dropped make it an earlier one.
        if start < 0:
            start = 0
        elif start >= len(ring) or ring[start].sequence != position + 1:
            start = bisect_right(ring, position, key=lambda event: event.sequence)
        return whole(islice(ring, start, None))

    def is_crowded(self) -> bool:
        """Return whether there are so many readers that each waits for its turn, whatever there is for it."""
        return self.users > _SERVED_AT_ONCE

    async def wait(self, waiter: Waiter, *, for_turn: bool = False) -> None:
        """Wait until there is something new and it is the reader's turn, or somebody wakes the waiter.

        When events come faster than all readers can be served, they gather until it is a reader's turn again.

        Args:
            waiter: Who waits.
            for_turn: Whether there is something for it already.
        """
        waiter.future = self._loop.create_future()
        self._under_way.pop(waiter, None)
        waiter.is_slow = self._loop.time() > waiter.served + _SLOW_SECONDS
        if for_turn:
            self._queue.append(waiter)
        else:
            self._waiting.add(waiter)
        if self._queue:
            self._serve()
        try:
            await waiter.future
        finally:
            waiter.future = None
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Let all who wait have their turn."""
        if self._queue or max(self.users, len(self._waiting)) > _SERVED_AT_ONCE:
            self._queue.extend(self._waiting)
            self._waiting.clear()
            self._serve()
            return
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.served = math.inf
            waiter.wake()

    def invalidate(self) -> None:
        """Let all who read find out that they are to subscribe anew."""
        self.invalidated = True
        self.wake()

    def close(self) -> None:
        """Stop what is planned and forget all events; nobody holds the tail any more."""
        self._forget(self.newest)
        if self._timer is not None:
            self._timer.cancel()

    def leave(self, waiter: Waiter) -> None:
        """Note that a reader comes back no more."""
        self._under_way.pop(waiter, None)
        self._serve()

    def _serve(self) -> None:
        if len(self._under_way) <= _LEFT_TO_COME:
            now = self._loop.time()
            for _ in range(min(_SERVED_AT_ONCE, len(self._queue))):
                waiter = self._queue.popleft()
                waiter.served = now
                if not waiter.is_slow:
                    self._under_way[waiter] = None
                waiter.wake()
        if self._queue and self._timer is None:
            self._timer = self._loop.call_later(_SLOW_SECONDS / 4, self._look_for_slow)

    def _look_for_slow(self) -> None:
        self._timer = None
        now = self._loop.time()
        for waiter in [known for known in self._under_way if now > known.served + _SLOW_SECONDS]:
            del self._under_way[waiter]
        self._serve()

    def _trim(self) -> None:
        ring = self._ring
        most = _MOST_RING_BYTES if self._room.used <= _ALL_RINGS_BYTES else _RING_BYTES
        while len(ring) > _RING_ITEMS or (self._bytes > most and len(ring) > 1):
            gone = ring.popleft()
            self._grow(-len(gone.frame))
            self.floor = gone.sequence

    def _grow(self, size: int) -> None:
        self._bytes += size
        self._room.used += size

    def _forget(self, floor: int) -> None:
        self._ring.clear()
        self._batches.clear()
        self._grow(-self._bytes)
        self.floor = floor


def whole(events: Iterable[Event]) -> list[Event]:
    """Return the first events until there is a hole, or a batch is full."""
    taken: list[Event] = []
    size = 0
    for event in events:
        if taken and (event.sequence != taken[-1].sequence + 1 or size + len(event.frame) > BATCH_BYTES):
            break
        taken.append(event)
        size += len(event.frame)
    return taken
