"""How far subscribers have read, told to the store: seldom, as it only matters when a buffer is full."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy
from mediamesh.streams.log.ports import Place
from mediamesh.streams.transit import Transit
from mediamesh.wire.errors import Unavailable

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamLimits
    from mediamesh.streams.log.ports import StreamStore

__all__ = ["Places", "Reader"]

# Who took nothing for so long has what it was given, or will never have it.
_RESTED_SECONDS = 5.0
# A place is told again when it moved by this part of the buffer: a producer elsewhere waits no longer than that.
_STEPS = 4
_LOG = logging.getLogger(__name__)
_COUNTED = (
    OverflowPolicy.OVERFLOW_POLICY_UNSPECIFIED,
    OverflowPolicy.OVERFLOW_POLICY_BLOCK,
    OverflowPolicy.OVERFLOW_POLICY_DROP_NEWEST,
)


class Reader:
    """The place of one subscriber.

    Attributes:
        subscriber_id: Who reads.
        position: Sequence of the last event that it was given, and asked for more.
        resting: Since when it asks for more, by the clock of the loop; infinite while it is being given something.
    """

    __slots__ = ("_items", "_room", "_size", "_told", "_transit", "position", "resting", "subscriber_id")

    def __init__(self, subscriber_id: str, position: int, limits: StreamLimits) -> None:
        self.subscriber_id = subscriber_id
        self.position = position
        self.resting = math.inf
        self._told = position
        self._transit = Transit(position, limits)
        self._size = 0
        self._items = max(1, limits.max_items // _STEPS)
        self._room = limits.max_bytes // _STEPS

    @property
    def place(self) -> int:
        """Sequence up to which nothing needs to be kept for it: what is still on its way it may ask for again."""
        return self._transit.look()

    def move(self, position: int, size: int, now: float) -> None:
        """Take events of so many bytes, up to a position, and ask for more."""
        self.position = position
        self._size += size
        self._transit.give(position, size)
        self.resting = now

    def rest(self, now: float) -> None:
        """Count what was given as arrived when the reader has waited for long."""
        if now - self.resting >= _RESTED_SECONDS:
            self._transit.rest(self.position)

    def is_far(self) -> bool:
        """Return whether the store knows a place that is far behind."""
        return self.position - self._told >= self._items or self._size >= self._room

    def tell(self, *, anyway: bool) -> bool:
        """Return whether the store should know the place; it is taken as told from now on."""
        place = self.place
        changed = anyway or place != self._told
        self._told = place
        self._size = 0
        return changed


class Places:
    """The places of the subscribers on this replica, of streams whose policy minds them."""

    def __init__(self, store: StreamStore, *, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._readers: dict[str, dict[str, Reader]] = {}
        self._due: list[Place] = []
        self._is_due = asyncio.Event()
        self._freed: dict[str, asyncio.Event] = {}
        self._loop = asyncio.get_running_loop()

    async def enter(self, stream: Stream, subscriber_id: str, position: int) -> Reader | None:
        """Take a place, so that nothing after it goes; None when the policy of the stream does not mind."""
        if stream.limits.overflow not in _COUNTED or stream.HasField("end"):
            return None
        reader = Reader(subscriber_id, position, stream.limits)
        # Who comes again takes its place over from the connection that it lost.
        self._readers.setdefault(stream.stream_id, {})[subscriber_id] = reader
        try:
            await self._store.place([self._place(stream.stream_id, reader)])
        except BaseException:
            self.leave(stream.stream_id, reader, ended=True)
            raise
        return reader

    def move(self, stream_id: str, reader: Reader, position: int, size: int) -> None:
        """Note that a subscriber has taken events of so many bytes, up to a position."""
        reader.move(position, size, self._loop.time())
        if reader.is_far():
            reader.tell(anyway=True)
            self._add(self._place(stream_id, reader))
        if freed := self._freed.get(stream_id):
            freed.set()

    def leave(self, stream_id: str, reader: Reader, *, ended: bool) -> None:
        """Give a place back, to be kept for a while unless the stream was read to its end."""
        readers = self._readers.get(stream_id, {})
        if readers.get(reader.subscriber_id) is not reader:
            return
        del readers[reader.subscriber_id]
        if not readers:
            del self._readers[stream_id]
        if not ended:
            self._add(self._place(stream_id, reader))

    def changed(self, stream_id: str) -> dict[str, int]:
        """Return the places in a stream that the store does not know yet; they are taken as told."""
        readers = self._readers.get(stream_id, {})
        now = self._loop.time()
        for reader in readers.values():
            reader.rest(now)
        return {known: reader.place for known, reader in readers.items() if reader.tell(anyway=False)}

    async def freed(self, stream_id: str, seconds: float) -> None:
        """Wait until a subscriber of a stream moves here, or so long."""
        event = self._freed.setdefault(stream_id, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._freed.pop(stream_id, None)

    async def keep(self) -> None:
        """Tell the store the places that moved far, and all now and then, until cancelled."""
        loop = self._loop
        renewed = loop.time()
        while True:
            left = renewed + self._seconds / 2 - loop.time()
            if left <= 0:
                renewed = loop.time()
                self._renew()
            elif not self._due:
                self._is_due.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._is_due.wait()
                except TimeoutError:
                    continue
            due, self._due = self._due, []
            try:
                if due:
                    await self._store.place(due)
            except Unavailable as error:
                _LOG.debug("%s", error)
                await asyncio.sleep(min(1.0, self._seconds / 4))

    def _renew(self) -> None:
        now = self._loop.time()
        for stream_id, readers in self._readers.items():
            for reader in readers.values():
                reader.rest(now)
                reader.tell(anyway=True)
                self._due.append(self._place(stream_id, reader))

    def _add(self, place: Place) -> None:
        self._due.append(place)
        self._is_due.set()

    def _place(self, stream_id: str, reader: Reader) -> Place:
        return Place(
            stream_id=stream_id, subscriber_id=reader.subscriber_id, position=reader.place, seconds=self._seconds
        )
