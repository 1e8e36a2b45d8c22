"""Publishes to a stream: events are numbered, kept until they are acknowledged, and sent again after a break."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_pb2 import (
    STREAM_EVENT_TYPE_STREAM_DATA,
    STREAM_EVENT_TYPE_STREAM_END,
    STREAM_EVENT_TYPE_STREAM_ERROR,
    STREAM_EVENT_TYPE_STREAM_START,
    STREAM_STATE_ENDED,
    STREAM_STATE_FAILED,
    StreamEventType,
    StreamMetadata,
    StreamPayload,
)
from mediamesh.api.stream.v1.stream_service_pb2 import PublishOpen
from mediamesh.client.streams.conversation import Conversation
from mediamesh.client.streams.outbox import Outbox
from mediamesh.wire.errors import Cancelled, FailedPrecondition, MeshError

if TYPE_CHECKING:
    from google.rpc import status_pb2

    from mediamesh.api.stream.v1.chunk_pb2 import Chunk
    from mediamesh.api.stream.v1.stream_pb2 import Stream
    from mediamesh.api.stream.v1.stream_service_pb2 import PublishWindow
    from mediamesh.client.streams.link import Call

__all__ = ["MAX_UNACKNOWLEDGED", "MAX_UNACKNOWLEDGED_BYTES", "Publisher", "publishing"]

MAX_UNACKNOWLEDGED = 1024
MAX_UNACKNOWLEDGED_BYTES = 8 * 1024 * 1024
_ACKNOWLEDGE_SECONDS = 15.0
_GOODBYE_SECONDS = 1.0
_STATES = {
    STREAM_EVENT_TYPE_STREAM_END: STREAM_STATE_ENDED,
    STREAM_EVENT_TYPE_STREAM_ERROR: STREAM_STATE_FAILED,
}


class Publisher:
    """The producer of a stream, which `StreamClient.publish` gives.

    Its methods wait while too much is unacknowledged. They raise what the conversation with the stream failed with:
    FailedPrecondition when another producer took over or the stream has ended, Unavailable or StreamInterrupted when no
    server was found within the patience, Cancelled when the producer has left. One that is cancelled has sent its event
    if ``last_sequence`` has moved.
    """

    def __init__(self, opening: PublishOpen, outbox: Outbox, conversation: Conversation) -> None:
        self._opening = opening
        self._outbox = outbox
        self._conversation = conversation
        # A producer that goes on for another one: the first event was the start of the stream, the rest were chunks.
        self._chunks = max(0, outbox.newest - 1)

    @property
    def stream_id(self) -> str:
        """The stream."""
        return self._opening.stream_id

    @property
    def producer_id(self) -> str:
        """The producer's id."""
        return self._opening.producer_id

    @property
    def epoch(self) -> int:
        """The producer's epoch."""
        return self._opening.epoch

    @property
    def acknowledged(self) -> int:
        """Sequence of the last event that is known to be stored."""
        return self._outbox.acknowledged

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event that was given; at first, of the last that the stream had before."""
        return self._outbox.newest

    @property
    def window(self) -> PublishWindow:
        """How much the buffer of the stream takes before its policy acts."""
        return self._conversation.window

    @property
    def is_blocked(self) -> bool:
        """Whether the policy of the stream holds the producer until a subscriber has caught up."""
        return self._conversation.is_blocked

    @property
    def dropped(self) -> int:
        """How many of its events the policy of the stream has dropped."""
        return self._conversation.dropped

    async def start(self, metadata: StreamMetadata | None = None) -> int:
        """Begin the stream with what is known about the whole; return the sequence of its `stream_start`."""
        return await self._put(STREAM_EVENT_TYPE_STREAM_START, StreamPayload(metadata=metadata))

    async def send(self, chunk: Chunk, metadata: StreamMetadata | None = None) -> int:
        """Send a chunk and return the sequence of its event; its acknowledgement is not waited for.

        A chunk that has no number or no time gets them.
        """
        payload = StreamPayload(data=chunk, metadata=metadata)
        if not chunk.HasField("timestamp"):
            payload.data.timestamp.GetCurrentTime()
        return await self._put(STREAM_EVENT_TYPE_STREAM_DATA, payload)

    async def end(self, reason: str = "stop") -> int:
        """End the stream, wait until all of it is stored, and return the sequence of its last event."""
        await self._put(STREAM_EVENT_TYPE_STREAM_END, StreamPayload(metadata=StreamMetadata(reason=reason)))
        await self.flush()
        return self.last_sequence

    async def fail(self, error: MeshError | status_pb2.Status) -> int:
        """End the stream with an error; otherwise as `end`."""
        status = error.to_status() if isinstance(error, MeshError) else error
        await self._put(STREAM_EVENT_TYPE_STREAM_ERROR, StreamPayload(error=status))
        await self.flush()
        return self.last_sequence

    async def flush(self) -> None:
        """Wait until all that was sent is stored."""
        await self._outbox.until(lambda: self._outbox.is_empty)

    async def _put(self, event_type: StreamEventType.ValueType, payload: StreamPayload) -> int:
        await self._outbox.room(payload.ByteSize())
        if self._conversation.end is not None:
            raise FailedPrecondition(
                f"Stream {self.stream_id} has ended with event {self.last_sequence}; nothing can follow.",
                stream_id=self.stream_id,
                last_sequence=self.last_sequence,
            )
        if event_type == STREAM_EVENT_TYPE_STREAM_DATA:
            payload.data.sequence_number = self._chunks = payload.data.sequence_number or self._chunks + 1
        self._conversation.end = _STATES.get(event_type)
        return self._outbox.add(event_type, payload)


@asynccontextmanager
async def publishing(
    call: Call,
    look: Callable[[], Awaitable[Stream]],
    *,
    opening: PublishOpen,
    max_unacknowledged: int,
    max_unacknowledged_bytes: int,
    patience: float,
) -> AsyncGenerator[Publisher]:
    """Publish to a stream over some transport, as `StreamClient.publish` tells.

    Args:
        call: Makes one call of Publish.
        look: Returns the stream as it stands.
        opening: Who publishes to what.
        max_unacknowledged: Most events that are sent and not acknowledged.
        max_unacknowledged_bytes: Most bytes, likewise.
        patience: How many seconds without a word from any server to bear.
    """
    opening.producer_id = opening.producer_id or uuid.uuid4().hex
    outbox = Outbox(opening.stream_id, max_items=max_unacknowledged, max_bytes=max_unacknowledged_bytes)
    conversation = Conversation(
        call=call, look=look, opening=opening, outbox=outbox, patience=patience, silence=_ACKNOWLEDGE_SECONDS
    )
    # Not a TaskGroup: it would wrap what the caller's block raises, and the conversation raises nothing.
    task = asyncio.create_task(conversation.run())
    try:
        await conversation.opened()
        publisher = Publisher(opening, outbox, conversation)
        yield publisher
        await publisher.flush()
        conversation.leave()
        await asyncio.wait([task], timeout=_GOODBYE_SECONDS)
    finally:
        task.cancel()
        await asyncio.wait([task])
        # Other tasks may wait still, or come.
        outbox.fail(Cancelled(f"The producer has left stream {opening.stream_id}.", stream_id=opening.stream_id))
