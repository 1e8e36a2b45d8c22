"""One subscriber: a position in a stream, what is past from the log and what is new from memory, with no seam."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Self

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy, StreamGap, StreamGoAway, StreamHeartbeat
from mediamesh.streams.events import Batch, event_of
from mediamesh.streams.hub import no_stream
from mediamesh.streams.metrics import COUNTS, delivered_after
from mediamesh.streams.tail import Waiter, whole
from mediamesh.wire.errors import InvalidRequest, Overloaded, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream
    from mediamesh.api.stream.v1.stream_service_pb2 import SubscribeRequest
    from mediamesh.streams.events import Event
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import Page, StreamStore
    from mediamesh.streams.places import Places, Reader
    from mediamesh.streams.tail import Tail

__all__ = ["Delivery", "Subscription", "position_of"]

# What is read of the log at once. Each read is a round trip; a reader of media would never catch up event by event.
_PAGE_ITEMS = 256
_PAGE_BYTES = 512 * 1024
# Who takes a page within this is given the next one without waiting for the log.
_QUICK_SECONDS = 0.25
_SAMPLED = 64
_DIGITS_OF_64_BITS = 20

Delivery = Batch | StreamGap | StreamHeartbeat | StreamGoAway


def position_of(request: SubscribeRequest) -> int:
    """Return where a subscriber goes on.

    Raises:
        InvalidRequest: the resume token is none.
    """
    token = request.resume_token
    if not token:
        return request.after_sequence
    if not (token.isascii() and token.isdigit() and len(token) < _DIGITS_OF_64_BITS):
        raise InvalidRequest.of_field(
            "resume_token",
            f"must be one that a go_away of the stream {request.stream_id} gave, not {token[:32]!r}",
            stream_id=request.stream_id,
        )
    return int(token)


class Subscription:
    """An async iterator of what a subscriber gets; it ends after the stream's last event.

    It holds a position and no queue: however slow the reader, it costs a page of the log and the batch that it is being
    given.

    Attributes:
        stream: The stream as it was when the subscriber came.
        position: Sequence up to which everything was handed over, or told as lost.
    """

    def __init__(
        self,
        stream: Stream,
        position: int,
        tail: Tail,
        place: Reader | None,
        *,
        interval: float,
        store: StreamStore,
        hub: Hub,
        places: Places,
    ) -> None:
        self.stream = stream
        self.position = position
        self._tail = tail
        self._place = place
        self._interval = interval
        self._store = store
        self._hub = hub
        self._places = places
        self._disconnects = stream.limits.overflow == OverflowPolicy.OVERFLOW_POLICY_DISCONNECT
        self._held: Batch | None = None
        self._page: deque[Event] = deque()
        self._ahead: tuple[int, asyncio.Task[Page | None]] | None = None
        self._paged = -math.inf
        self._given = 0
        self._given_any = False
        self._sampled = _SAMPLED - 1  # the first one is
        self._done = False
        self._waiter = Waiter()
        self._loop = asyncio.get_running_loop()
        self._spoke = self._loop.time()
        self._clock: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        COUNTS.subscribers += 1
        self._tick()
        return self

    async def __aexit__(self, *_error: object) -> None:
        COUNTS.subscribers -= 1
        self._tail.leave(self._waiter)
        if self._clock is not None:
            self._clock.cancel()
        if self._ahead is not None:
            self._ahead[1].cancel()
            await asyncio.gather(self._ahead[1], return_exceptions=True)
        if self._place is not None:
            ended = self._tail.ended and self.position >= self._tail.newest
            self._places.leave(self.stream.stream_id, self._place, ended=ended)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """Return what comes next.

        Raises:
            Overloaded: the policy disconnects who lags, and this subscriber does.
            NotFound: the stream expired.
            Unavailable: the log cannot be read, or has lost events that it had.
        """
        # Who asks for more has taken what it was given.
        if self._place is not None and self._place.position < self.position:
            self._places.move(self.stream.stream_id, self._place, self.position, self._given)
        if self._done:
            raise StopAsyncIteration
        if self._held or self._page:
            return self._at_hand()
        tail = self._tail
        has_turn = not tail.is_crowded()
        while True:
            if tail.invalidated:
                raise _lost(self.stream.stream_id)
            if tail.ended and self.position >= tail.newest:
                raise StopAsyncIteration
            if self._hub.leaving:
                return self._go_away()
            if self.position < tail.newest and has_turn:
                if self.position < tail.floor:
                    return await self._from_log()
                if batch := tail.after(self.position):
                    return self._seamless(batch)
            if self._loop.time() >= self._spoke + self._interval:
                if delivery := await self._when_silent():
                    return delivery
                # Who was told nothing for so long waits for no turn: here nothing else would ever suspend it.
                has_turn = True
                continue
            await tail.wait(self._waiter, for_turn=not has_turn and self.position < tail.newest)
            has_turn = True

    def _tick(self) -> None:
        # One timer for each subscriber, that looks when it last spoke: setting it anew for each event would cost more.
        due = self._spoke + self._interval
        if due <= self._loop.time():
            self._waiter.wake()
            due = self._loop.time() + self._interval
        self._clock = self._loop.call_at(due, self._tick)

    def _seamless(self, batch: Batch) -> Delivery:
        first = batch.events[0].sequence
        if first > self.position + 1:
            gap = self._gap(first - 1)
            self._held = batch
            return gap
        return self._give(batch)

    def _give(self, batch: Batch) -> Batch:
        events = batch.events
        self.position = events[-1].sequence
        if self._place is not None:
            self._place.resting = math.inf
        now = self._spoke = self._loop.time()
        self._given = size = batch.size
        COUNTS.events_out += len(events)
        COUNTS.bytes_out += size
        self._given_any = True
        self._sampled += len(events)
        if self._sampled >= _SAMPLED:
            self._sampled = 0
            if accepted := events[-1].accepted:
                delivered_after(now - accepted, self.stream.node_id)
        return batch

    def _gap(self, last: int) -> StreamGap:
        if self._disconnects and self._given_any:
            raise Overloaded(
                f"The subscriber reads the stream {self.stream.stream_id} too slowly: event {self.position + 1} is no"
                f" longer kept, the first one is {last + 1}.",
                stream_id=self.stream.stream_id,
                sequence=self.position,
                first_sequence=last + 1,
            )
        gap = StreamGap(first_sequence=self.position + 1, last_sequence=last)
        COUNTS.gaps += 1
        self.position, self._given = last, 0
        self._spoke = self._loop.time()
        return gap

    def _go_away(self) -> StreamGoAway:
        self._done = True
        return StreamGoAway(reason="The server is going away; subscribe to another.", resume_token=str(self.position))

    async def _from_log(self) -> Delivery:
        page = await self._next_page() or await self._read(self.position)
        if page is None:
            raise no_stream(self.stream.stream_id)
        if page.ended:
            # While it lives, what is new comes to the tail too; telling it now would empty its ring for all readers.
            self._tail.advance(page.newest, ended=True)
        if not page.entries:
            if page.newest <= self.position:
                raise _lost(self.stream.stream_id)
            return self._gap(page.newest)
        self._page.extend(map(event_of, page.entries))
        self._read_ahead(page.entries[-1].sequence)
        return self._from_page()

    async def _read(self, after: int) -> Page | None:
        known = self._tail.newest
        page = await self._store.read(self.stream.stream_id, after, items=_PAGE_ITEMS, size=_PAGE_BYTES)
        if page is not None:
            self._hub.compare(self._tail, known, page.newest)
        return page

    def _read_ahead(self, after: int) -> None:
        """Ask for the next page while this one is given, unless the reader is slow: then it costs one page only."""
        now = self._loop.time()
        is_quick, self._paged = now - self._paged < _QUICK_SECONDS, now
        if is_quick and after < self._tail.floor:
            self._ahead = after, asyncio.create_task(self._read(after))

    async def _next_page(self) -> Page | None:
        """Return the page that was asked for ahead; None when none was, or it has nothing."""
        if self._ahead is None:
            return None
        (after, reading), self._ahead = self._ahead, None
        page = await reading
        return page if page is not None and page.entries and after == self.position else None

    def _at_hand(self) -> Delivery:
        if (held := self._held) is not None:
            self._held = None
            return self._give(held)
        return self._go_away() if self._hub.leaving else self._from_page()

    def _from_page(self) -> Delivery:
        events = whole(self._page)
        for _ in events:
            self._page.popleft()
        return self._seamless(Batch(events))

    async def _when_silent(self) -> Delivery | None:
        await self._hub.look(self._tail, self._interval)
        tail = self._tail
        if tail.invalidated or self.position < tail.floor:
            return None
        if self.position < tail.newest:
            # What was dropped at the end shows by nothing that came after it.
            return self._seamless(batch) if (batch := tail.after(self.position)) else self._gap(tail.newest)
        if tail.ended:
            return None
        self._spoke = self._loop.time()
        return StreamHeartbeat(last_sequence=tail.newest)


def _lost(stream_id: str) -> Unavailable:
    return Unavailable(
        f"The store has lost the newest events of the stream {stream_id}; subscribe again.", stream_id=stream_id
    )
