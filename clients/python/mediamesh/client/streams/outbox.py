"""Events on their way: numbered in order, and kept until the stream has acknowledged them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent, PublishRequest
from mediamesh.wire.errors import OutOfRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediamesh.api.stream.v1.stream_pb2 import StreamEventType, StreamPayload

__all__ = ["Outbox"]


class Outbox:
    """The events that a producer has sent and of which it does not know yet that they are stored.

    Args:
        stream_id: The stream, for errors.
        max_items: Most events kept; the next waits.
        max_bytes: Most bytes kept, likewise; one event always fits.

    Attributes:
        acknowledged: Sequence of the last event that is stored.
        newest: Sequence of the last event that was put in.
        added: Set when an event was put in.
    """

    def __init__(self, stream_id: str, *, max_items: int, max_bytes: int) -> None:
        self._stream_id = stream_id
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._frames: dict[int, bytes] = {}
        self._bytes = 0
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self.acknowledged = 0
        self.newest = 0
        self.added = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        """Whether all is acknowledged."""
        return not self._frames

    def begin(self, sequence: int) -> None:
        """Go on after the events that a stream has already."""
        self.acknowledged = self.newest = sequence
        self._changed.set()

    async def room(self, size: int) -> None:
        """Wait until an event of about so many bytes may be added.

        Raises:
            Exception: what the conversation with the stream failed with.
        """
        await self.until(lambda: self._fits(size))

    def add(self, event_type: StreamEventType.ValueType, payload: StreamPayload) -> int:
        """Number an event and keep it; return its sequence."""
        self.newest += 1
        event = PublishEvent(sequence=self.newest, event_type=event_type, payload=payload)
        frame = PublishRequest(event=event).SerializeToString()
        self._frames[self.newest] = frame
        self._bytes += len(frame)
        self.added.set()
        return self.newest

    def frame(self, sequence: int) -> bytes | None:
        """Return an event as it is sent; None when there is none of this sequence, or no more."""
        return self._frames.get(sequence)

    def settle(self, sequence: int) -> None:
        """Forget the events up to a sequence: they are stored."""
        while self.acknowledged < min(sequence, self.newest):
            self.acknowledged += 1
            self._bytes -= len(self._frames.pop(self.acknowledged))
        self._changed.set()

    def reopen(self, sequence: int) -> None:
        """Forget what a stream has stored although its acknowledgement did not arrive.

        Raises:
            OutOfRange: the stream has lost events that it had acknowledged.
        """
        if sequence < self.acknowledged:
            raise OutOfRange(
                f"Stream {self._stream_id} has acknowledged event {self.acknowledged} and now ends at {sequence}.",
                stream_id=self._stream_id,
                sequence=self.acknowledged,
                last_sequence=sequence,
            )
        self.settle(sequence)

    def fail(self, error: Exception) -> None:
        """Let everybody who waits, and who comes, have this error."""
        self._failure = self._failure or error
        self._changed.set()

    def check(self) -> None:
        """Raise the error that the conversation failed with, if it did."""
        if self._failure is not None:
            raise self._failure

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, asked after every acknowledgement.

        Raises:
            Exception: what the conversation with the stream failed with.
        """
        self.check()
        while not holds():
            self._changed.clear()
            await self._changed.wait()
            self.check()

    def _fits(self, size: int) -> bool:
        is_small = len(self._frames) < self._max_items and self._bytes + size <= self._max_bytes
        return is_small or not self._frames
