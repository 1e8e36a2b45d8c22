"""Ends streams in place of their producers: when somebody closes them, and when they outlive their time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.streams.events import Speller
from mediamesh.streams.hub import no_stream
from mediamesh.streams.identity import new_id
from mediamesh.streams.limits import seconds_of
from mediamesh.streams.log.ports import Append, Entry, Outcome
from mediamesh.streams.metrics import COUNTS
from mediamesh.wire.errors import MeshError, StreamTimeout, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import StreamStore

__all__ = ["end_stream", "sweep"]

_LOG = logging.getLogger(__name__)
_AT_ONCE = 100
_TRIES = 20
# Where the producer is on this replica, its next events are always on their way before an end can be.
_FENCED_AFTER = 5


async def end_stream(store: StreamStore, hub: Hub, stream_id: str, end: StreamEnd) -> Stream:
    """End a stream with one more event, unless it has ended; many replicas may do so at once.

    A producer that is faster again and again is shut out, as if another had taken over.

    Raises:
        NotFound: there is no such stream.
        Unavailable: the store cannot be reached, or producers are always faster.
    """
    for attempt in range(_TRIES):
        if attempt and attempt % _FENCED_AFTER == 0:
            await store.take(stream_id, new_id(), 0)
        found = await store.load([stream_id])
        if not found:
            raise no_stream(stream_id)
        stream = found[0].stream
        if stream.HasField("end"):
            return stream
        await _try_to_end(store, hub, stream, end)
    raise Unavailable(f"The stream {stream_id} cannot be ended: its producer is faster.", stream_id=stream_id)


async def _try_to_end(store: StreamStore, hub: Hub, stream: Stream, end: StreamEnd) -> None:
    sequence = stream.last_sequence + 1
    payload = stream_pb2.StreamPayload(metadata=stream_pb2.StreamMetadata(reason=end.reason))
    event_type = stream_pb2.STREAM_EVENT_TYPE_STREAM_END
    if end.HasField("error"):
        event_type = stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR
        payload.error.CopyFrom(end.error)
    data = Speller(stream).spell(sequence, event_type, payload)
    append = Append(stream_id=stream.stream_id, epoch=0, entries=[Entry(sequence, data)], end=end)
    appended = await store.append(append)
    # Where a producer was faster, its event has this place and ours counts as repeated: the stream lives on.
    if appended.outcome is Outcome.STORED and appended.newest == sequence:
        await hub.refresh(stream.stream_id)


async def sweep(store: StreamStore, hub: Hub, *, seconds: float) -> None:
    """End streams that live longer than they may, until cancelled; on all replicas alike."""
    while True:
        try:
            COUNTS.live_streams = await store.live()
            for stream_id in await store.overdue(_AT_ONCE):
                await _time_out(store, hub, stream_id)
        except MeshError as error:
            _LOG.debug("%s", error)
        await asyncio.sleep(seconds)


async def _time_out(store: StreamStore, hub: Hub, stream_id: str) -> None:
    """End a stream that is overdue; what keeps one from ending is no matter of the others."""
    try:
        await _end_late(store, hub, stream_id)
    except MeshError as error:
        _LOG.debug("%s", error)


async def _end_late(store: StreamStore, hub: Hub, stream_id: str) -> None:
    found = await store.load([stream_id])
    if not found:
        return
    longest = seconds_of(found[0].stream.limits.max_duration)
    error = StreamTimeout(
        f"The stream {stream_id} has lived longer than {longest:g} s.",
        stream_id=stream_id,
        max_duration_s=f"{longest:g}",
    )
    await end_stream(store, hub, stream_id, stream_pb2.StreamEnd(reason="timeout", error=error.to_status()))
