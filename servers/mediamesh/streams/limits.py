"""The bounds of a stream: what was asked for, filled up and held to the server's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_pb2 import (
    OVERFLOW_POLICY_BLOCK,
    STREAM_EVENT_TYPE_STREAM_DATA,
    StreamLimits,
)
from mediamesh.wire.chunks import problems
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent
    from mediamesh.streams.settings import Settings

__all__ = ["check_event", "limits_of", "seconds_of"]


def limits_of(asked: StreamLimits, settings: Settings) -> StreamLimits:
    """Return limits with every field set.

    Raises:
        InvalidRequest: more is asked for than a stream may have; names each field and its limit.
    """
    most = {
        "max_items": settings.max_buffer_items,
        "max_bytes": settings.max_buffer_bytes,
        "max_events_per_second": settings.max_events_per_second,
    }
    if wrong := [
        (f"limits.{name}", f"must be {limit:g} at most") for name, limit in most.items() if getattr(asked, name) > limit
    ]:
        raise InvalidRequest.of_fields(wrong)
    limits = StreamLimits(
        overflow=asked.overflow or OVERFLOW_POLICY_BLOCK,
        max_items=asked.max_items or settings.buffer_items,
        max_bytes=asked.max_bytes or settings.buffer_bytes,
        max_events_per_second=asked.max_events_per_second or settings.max_events_per_second,
        max_duration=asked.max_duration,
        heartbeat_interval=asked.heartbeat_interval,
    )
    if not asked.HasField("max_duration"):
        limits.max_duration.FromNanoseconds(round(settings.max_duration_seconds * 1e9))
    if not asked.HasField("heartbeat_interval"):
        limits.heartbeat_interval.FromNanoseconds(round(settings.heartbeat_seconds * 1e9))
    return limits


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.ToNanoseconds() / 1e9


def check_event(stream_id: str, event: PublishEvent, most_bytes: int) -> None:
    """Refuse an event that is too large, or carries a chunk that breaks the rules of its kind.

    Raises:
        InvalidRequest: it does; names the stream, the position and the field.
    """
    size = event.ByteSize()
    where = {"stream_id": stream_id, "sequence": event.sequence}
    if size > most_bytes:
        raise InvalidRequest.of_field(
            "event",
            f"has {size} bytes as event {event.sequence} of the stream {stream_id}; {most_bytes} at most are taken",
            limit_bytes=most_bytes,
            **where,
        )
    if event.event_type == STREAM_EVENT_TYPE_STREAM_DATA and not event.payload.HasField("data"):
        raise InvalidRequest.of_field(
            "event.payload.data",
            f"must be set in event {event.sequence} of the stream {stream_id}, which is `stream_data`",
            **where,
        )
    if event.payload.HasField("data") and (wrong := problems(event.payload.data, fields_checked=True)):
        raise InvalidRequest.of_fields(
            (
                (f"event.payload.data.{field}", f"{text} (event {event.sequence} of the stream {stream_id})")
                for field, text in wrong
            ),
            **where,
        )
