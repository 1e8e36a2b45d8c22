"""What comes from other replicas, and the tails that it goes to: one poll for the whole process."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.streams.bulletin import Bulletin
from mediamesh.streams.events import event_of, is_last
from mediamesh.streams.tail import Room, Tail
from mediamesh.wire.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.streams.events import Event
    from mediamesh.streams.log.ports import News, Stored, StreamStore

__all__ = ["Hub", "no_stream"]

# That the store is away is told by the server's health, once a second; hundreds of streams need not repeat it.
_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.2
# Streams that are opened together, or get their first readers together, are polled and told of together: each poll
# names all streams.
_PAUSE_SECONDS = 0.005
_PAUSE_A_STREAM = 20e-6
# A stream to which this replica appended so lately is fed by itself; asking the store too would read each event twice.
_OWN_SECONDS = 1.0


def no_stream(stream_id: str) -> NotFound:
    """Return the error for a stream that was never opened, or is forgotten."""
    return NotFound(f"There is no stream {stream_id}, or it has expired.", stream_id=stream_id)


class Hub:
    """Keeps the tails of the streams that have subscribers here, and feeds them.

    A stream to which this replica appends is fed by that; all others by the poll. Which is which shows in when it was
    fed last, so that it does not matter how a producer came to be elsewhere.

    Attributes:
        bulletin: News of streams that come and go.
        tails: The tails, by stream.
        leaving: Whether all are to go elsewhere.
    """

    def __init__(self, store: StreamStore, *, replica: str) -> None:
        self.bulletin = Bulletin(store)
        self.tails: dict[str, Tail] = {}
        self.leaving = False
        self._store = store
        self._replica = replica
        self._room = Room()
        self._claimed: dict[str, tuple[float, int]] = {}
        self._loop = asyncio.get_running_loop()

    async def poll(self) -> None:
        """Feed what other replicas append, until cancelled."""
        while True:
            now = self._loop.time()
            positions = {
                known: tail.newest
                for known, tail in self.tails.items()
                if not tail.ended and now - tail.fed > _OWN_SECONDS
            }
            try:
                polled = await self._store.poll(positions)
            except Unavailable as error:
                _LOG.debug("%s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for stream_id, entries in polled.entries.items():
                if entries and (tail := self.tails.get(stream_id)):
                    tail.push(
                        [event_of(entry) for entry in entries if entry.sequence > tail.newest],
                        after=positions[stream_id],
                        newest=entries[-1].sequence,
                        ended=is_last(entries[-1].data),
                    )
            for news in polled.news:
                self._tell(news)
            if not polled.entries:
                await asyncio.sleep(max(_PAUSE_SECONDS, len(positions) * _PAUSE_A_STREAM))

    def feed(self, stream_id: str, events: list[Event], *, after: int, newest: int, ended: bool) -> None:
        """Deliver events that this replica has appended: all after a position up to the newest."""
        if tail := self.tails.get(stream_id):
            tail.fed = self._loop.time()
            tail.push(events, after=after, newest=newest, ended=ended)

    def claim(self, stream_id: str, newest: int) -> None:
        """Note that a producer of the stream came here, to follow the newest event; what it sends is not asked for."""
        self._claimed[stream_id] = self._loop.time(), newest
        if tail := self.tails.get(stream_id):
            self._apply_claim(tail)

    async def disown(self, stream_id: str) -> None:
        """Note that no producer of the stream is here any more."""
        self._claimed.pop(stream_id, None)
        if (tail := self.tails.get(stream_id)) and not tail.ended:
            tail.fed = float("-inf")
            await self._wake()

    def leave(self) -> None:
        """Wake all who wait, so that they see that they are to go elsewhere."""
        self.leaving = True
        for tail in self.tails.values():
            tail.wake()
        self.bulletin.notify()

    @asynccontextmanager
    async def tail(self, stored: Stored) -> AsyncGenerator[Tail]:
        """Hold the tail of a stream for as long as the block lasts."""
        stream_id = stored.stream.stream_id
        tail = self.tails.get(stream_id)
        is_new = tail is None
        if tail is None:
            tail = self.tails[stream_id] = Tail(stored, self._loop, self._room)
            self._apply_claim(tail)
        else:
            tail.advance(stored.stream.last_sequence, ended=stored.stream.HasField("end"))
        tail.users += 1
        try:
            if is_new and not tail.ended and self._loop.time() - tail.fed > _OWN_SECONDS:
                await self._wake()
            yield tail
        finally:
            tail.users -= 1
            if tail.users == 0:
                tail.close()
                if self.tails.get(stream_id) is tail:
                    del self.tails[stream_id]

    async def load(self, stream_id: str) -> Stored:
        """Ask the store how a stream stands.

        Raises:
            NotFound: there is no such stream.
            Unavailable: the store cannot be reached.
        """
        tail = self.tails.get(stream_id)
        known = tail.newest if tail is not None else 0
        found = await self._store.load([stream_id])
        if not found:
            raise no_stream(stream_id)
        if tail is not None:
            self.compare(tail, known, found[0].stream.last_sequence)
        return found[0]

    def compare(self, tail: Tail, known: int, newest: int) -> None:
        """Let go of a tail that had more, before the store was asked, than the store then had.

        A Valkey that was killed may come back without its last events. Others take their sequences, which readers of
        this tail would never get; so they are sent to subscribe anew, where the store says what becomes of them.
        """
        if newest >= known or tail.invalidated:
            return
        stream_id = tail.stream_id
        _LOG.warning("The store has lost the events %d to %d of the stream %s.", newest + 1, known, stream_id)
        if self.tails.get(stream_id) is tail:
            del self.tails[stream_id]
        if (claim := self._claimed.get(stream_id)) and claim[1] > newest:
            del self._claimed[stream_id]
        tail.invalidate()

    async def look(self, tail: Tail, seconds: float) -> None:
        """Ask the store how a stream stands, unless that is known from less than so many seconds ago.

        Raises:
            NotFound: the stream has expired.
        """
        now = self._loop.time()
        if tail.ended or now - max(tail.checked, tail.fed) < seconds:
            return
        tail.checked = now
        try:
            stored = await self.load(tail.stream_id)
        except Unavailable as error:
            _LOG.debug("%s", error)
            return
        tail.advance(stored.stream.last_sequence, ended=stored.stream.HasField("end"))

    async def refresh(self, stream_id: str) -> None:
        """Ask the store how a stream stands that was changed from here."""
        if tail := self.tails.get(stream_id):
            tail.fed = float("-inf")
            await self.look(tail, 0)

    def _apply_claim(self, tail: Tail) -> None:
        if claim := self._claimed.get(tail.stream_id):
            tail.fed, newest = claim
            tail.advance(newest, ended=False)

    async def _wake(self) -> None:
        try:
            await self._store.wake()
        except Unavailable as error:
            _LOG.debug("%s", error)  # the poll fails too, and takes the new tail with it when it tries again

    def _tell(self, news: News) -> None:
        stream_id = news.stream.stream_id
        tail = self.tails.get(stream_id)
        if news.kind == "taken" and news.replica != self._replica:
            self._claimed.pop(stream_id, None)
            if tail is not None:
                tail.fed = float("-inf")
        elif news.kind == "ended" and tail is not None:
            tail.advance(news.stream.last_sequence, ended=True)
        self.bulletin.post(news)
