"""Reads a stream over any transport: each event once and in order, and what is lost as gaps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamGoAway, StreamHeartbeat
from mediamesh.client.streams.patience import Patience, passes
from mediamesh.wire.errors import MeshError, OutOfRange, Overloaded, StreamInterrupted

__all__ = ["Frame", "Place", "is_last", "resumed"]

Frame = Sequence[StreamEvent] | StreamGap | StreamHeartbeat | StreamGoAway
"""What a transport yields: events, or one of the three frames that are no events."""

_LAST = {stream_pb2.STREAM_EVENT_TYPE_STREAM_END, stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transport begins to read.

    Attributes:
        after: Sequence of the last event that the reader has.
        is_resumed: Whether the reader comes back, and so takes a gap where events are no longer kept.
    """

    after: int
    is_resumed: bool


def is_last(item: StreamEvent | StreamGap) -> bool:
    """Return whether no event follows."""
    return isinstance(item, StreamEvent) and item.event_type in _LAST


async def resumed(
    read: Callable[[Place], AsyncGenerator[Frame]], *, after_sequence: int, patience: float, allow_gap: bool = False
) -> AsyncGenerator[StreamEvent | StreamGap]:
    """Yield the events of a stream until its last one, through as many connections as it takes.

    Args:
        read: Reads from a place on, over one connection. It returns when the stream has no more; it raises errors of
            the tree.
        after_sequence: Sequence of the last event that the reader has.
        patience: How many seconds without a word from any server to bear.
        allow_gap: Whether the first connection may begin with a gap already.

    Raises:
        MeshError: what a server said about the request, or the last failure when the patience ended.
    """
    reader = _Reader(after_sequence, is_resumed=allow_gap)
    bearing = Patience(patience)
    while True:
        failure: MeshError = StreamInterrupted("The connection ended before the stream.")
        alive = went = False
        try:
            async with aclosing(read(reader.place)) as frames:
                async for frame in frames:
                    if isinstance(frame, StreamGoAway):
                        went = True
                        break
                    alive = True
                    for item in reader.take(frame):
                        yield item
                        if is_last(item):
                            return
                else:
                    # Nothing follows the place: the stream had ended there.
                    if not alive:
                        return
        except MeshError as error:
            if gap := reader.skip(error):
                yield gap
                continue
            if not reader.bears(error):
                raise
            failure = error
        if alive:
            bearing.heard()
        if not (alive and went):
            await bearing.bear(failure)


class _Reader:
    """How far a reader has come."""

    def __init__(self, after: int, *, is_resumed: bool) -> None:
        self.place = Place(after, is_resumed)

    def take(self, frame: Frame) -> Iterator[StreamEvent | StreamGap]:
        """Yield what is new in a frame, and move on past it."""
        if isinstance(frame, StreamHeartbeat | StreamGoAway):
            self._move(self.place.after)
        elif isinstance(frame, StreamGap):
            yield from self._lost(frame.last_sequence)
        else:
            for event in frame:
                if event.sequence > self.place.after:
                    # The server tells of gaps; a hole without one must not pass in silence either.
                    yield from self._lost(event.sequence - 1)
                    self._move(event.sequence)
                    yield event

    def skip(self, error: MeshError) -> StreamGap | None:
        """Return the gap up to the first event that is kept, where an error says that a reader's place is not."""
        first = error.metadata.get("first_sequence", "")
        if self.place.is_resumed and isinstance(error, OutOfRange) and first.isdigit():
            return next(self._lost(int(first) - 1), None)
        return None

    def bears(self, error: MeshError) -> bool:
        """Return whether to try again: what refused the first connection for being full may take the second."""
        is_full = isinstance(error, Overloaded) and error.retry_after is not None and self.place.is_resumed
        return is_full or passes(error)

    def _lost(self, last: int) -> Iterator[StreamGap]:
        if last > self.place.after:
            gap = StreamGap(first_sequence=self.place.after + 1, last_sequence=last)
            self._move(last)
            yield gap

    def _move(self, after: int) -> None:
        self.place = Place(after, is_resumed=True)
