"""Streams as the JSON edges show them, both ways: events, what else readers and producers get, and what they send.

Every object has an ``event_type``. The four of a stream's own events are ``stream_start``, ``stream_data``,
``stream_end`` and ``stream_error``; the others are ``gap``, ``heartbeat``, ``go_away``, ``error``, and for a producer
``opened``, ``ack`` and ``policy``. Bytes of media are ``base64`` in JSON; an edge that can carry them beside the JSON
writes ``binary`` and null (`event_apart`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mediamesh.api.stream.v1 import chunk_pb2
from mediamesh.api.stream.v1 import stream_pb2 as pb
from mediamesh.api.stream.v1 import stream_service_pb2 as service_pb2
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.status_json import status_from_object, status_object
from mediamesh.wire.stream_spelling import SPELLING, chunk_apart, detached_media
from mediamesh.wire.strict_json import as_object, at, known

__all__ = [
    "EVENT_TYPES",
    "Frame",
    "PublishFrame",
    "StreamFrame",
    "chunk_from_object",
    "chunk_object",
    "event_apart",
    "event_from_object",
    "event_name",
    "event_object",
    "frame_from_object",
    "frame_object",
    "publish_event_apart",
    "publish_event_from_object",
    "publish_event_object",
    "publish_frame_from_object",
    "publish_frame_object",
]

Frame: TypeAlias = pb.StreamEvent | pb.StreamGap | pb.StreamHeartbeat | pb.StreamGoAway | MeshError
"""What a reader of a stream gets; an error is the last."""
PublishFrame: TypeAlias = service_pb2.PublishResponse | MeshError
"""What a producer gets; an error is the last."""

EVENT_TYPES: Mapping[str, pb.StreamEventType.ValueType] = {
    "stream_start": pb.STREAM_EVENT_TYPE_STREAM_START,
    "stream_data": pb.STREAM_EVENT_TYPE_STREAM_DATA,
    "stream_end": pb.STREAM_EVENT_TYPE_STREAM_END,
    "stream_error": pb.STREAM_EVENT_TYPE_STREAM_ERROR,
}
"""The types of a stream's own events, by name."""

_EVENT_NAMES: Mapping[int, str] = {number: name for name, number in EVENT_TYPES.items()}
_EVENT_KEYS = frozenset({"event_type", "stream_id", "node_id", "pin_name", "sequence", "payload", "timestamp"})
_PUBLISH_KEYS = frozenset({"event_type", "sequence", "payload"})
_ERROR_KEYS = frozenset({"event_type", "stream_id", "error"})
_HEAD = frozenset({"event_type", "stream_id"})
_CONTROL: Mapping[str, type[Any]] = {"gap": pb.StreamGap, "heartbeat": pb.StreamHeartbeat, "go_away": pb.StreamGoAway}
_CONTROL_NAMES = {kind: name for name, kind in _CONTROL.items()}
# The names of a producer's frames, and the arms that they are.
_PUBLISH = {"opened": "opened", "ack": "ack", "policy": "notice", "go_away": "go_away"}
_PUBLISH_NAMES = {arm: name for name, arm in _PUBLISH.items()}


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One object that a reader got: which stream it is about, and what it says."""

    stream_id: str
    body: Frame


def event_name(event_type: int) -> str:
    """Return the name of a type of event, such as ``stream_data``; the number as text when there is none."""
    return _EVENT_NAMES.get(event_type) or str(event_type)


def chunk_object(chunk: chunk_pb2.Chunk) -> dict[str, Any]:
    """Return a chunk as what ``strict_json.dumps`` takes."""
    spelled: dict[str, Any] = SPELLING.write(chunk)
    return spelled


def chunk_from_object(value: Any, path: str = "", *, data: bytes | None = None) -> chunk_pb2.Chunk:
    """Return the chunk that an object spells.

    Args:
        value: What ``strict_json.loads`` gave.
        path: Where it stands, for errors.
        data: Bytes that came beside the JSON, for media whose encoding is ``binary``.

    Raises:
        InvalidRequest: it spells none; names the path.
    """
    chunk: chunk_pb2.Chunk = SPELLING.read(value, chunk_pb2.Chunk, path)
    _put_data(chunk, data, path)
    return chunk


def event_object(event: pb.StreamEvent) -> dict[str, Any]:
    """Return an event as what ``strict_json.dumps`` takes: always its seven keys, the payload with what is set."""
    return _event(event, SPELLING.write(event.payload))


def event_apart(event: pb.StreamEvent) -> tuple[dict[str, Any], bytes | None]:
    """Return an event's object, and the bytes of its media when they are not in it: ``data`` is null then."""
    payload, data = _payload_apart(event.payload)
    return _event(event, payload), data


def event_from_object(value: Any, path: str = "", *, data: bytes | None = None) -> pb.StreamEvent:
    """Return the event that an object spells; arguments and errors as for `chunk_from_object`."""
    event = pb.StreamEvent(event_type=_event_type(value, _EVENT_KEYS, path))
    SPELLING.read_fields(value, event, path, frozenset({"event_type", "payload"}))
    if payload := _payload(value, path, data):
        event.payload.CopyFrom(payload)
    return event


def frame_object(stream_id: str, frame: Frame) -> dict[str, Any]:
    """Return what a reader of a stream gets, whatever it is."""
    if isinstance(frame, pb.StreamEvent):
        return event_object(frame)
    if isinstance(frame, MeshError):
        return _error(stream_id, frame)
    return {"event_type": _CONTROL_NAMES[type(frame)], "stream_id": stream_id, **SPELLING.fields(frame)}


def frame_from_object(value: Any, path: str = "", *, data: bytes | None = None) -> StreamFrame:
    """Return what a reader got; arguments and errors as for `chunk_from_object`."""
    given = as_object(value, path)
    name = given.get("event_type")
    if name == "error":
        return StreamFrame(*_error_from_object(given, path))
    if isinstance(name, str) and name in _CONTROL:
        frame = SPELLING.read_fields(given, _CONTROL[name](), path, _HEAD)
        return StreamFrame(_stream_id(given, path), frame)  # type: ignore[arg-type]
    event = event_from_object(given, path, data=data)
    return StreamFrame(event.stream_id, event)


def publish_event_object(event: service_pb2.PublishEvent) -> dict[str, Any]:
    """Return an event as a producer sends it."""
    return _publish_event(event, SPELLING.write(event.payload))


def publish_event_apart(event: service_pb2.PublishEvent) -> tuple[dict[str, Any], bytes | None]:
    """Return a producer's event, and the bytes of its media when they are not in it: ``data`` is null then."""
    payload, data = _payload_apart(event.payload)
    return _publish_event(event, payload), data


def publish_event_from_object(value: Any, path: str = "", *, data: bytes | None = None) -> service_pb2.PublishEvent:
    """Return the event that a producer sent; arguments and errors as for `chunk_from_object`."""
    event = service_pb2.PublishEvent(event_type=_event_type(value, _PUBLISH_KEYS, path))
    SPELLING.read_fields(value, event, path, frozenset({"event_type", "payload"}))
    if payload := _payload(value, path, data):
        event.payload.CopyFrom(payload)
    return event


def publish_frame_object(stream_id: str, frame: PublishFrame) -> dict[str, Any]:
    """Return what a producer gets: ``opened``, ``ack``, ``policy``, ``go_away`` or ``error``."""
    if isinstance(frame, MeshError):
        return _error(stream_id, frame)
    arm = frame.WhichOneof("frame")
    if arm is None:
        raise ValueError("a frame to a producer carries nothing")
    return {"event_type": _PUBLISH_NAMES[arm], "stream_id": stream_id, **SPELLING.fields(getattr(frame, arm))}


def publish_frame_from_object(value: Any, path: str = "") -> tuple[str, PublishFrame]:
    """Return the stream's id and what a producer got.

    Raises:
        InvalidRequest: the object spells nothing that a producer gets; names the path.
    """
    given = as_object(value, path)
    name = given.get("event_type")
    if name == "error":
        return _error_from_object(given, path)
    if not isinstance(name, str) or name not in _PUBLISH:
        raise InvalidRequest.of_field(at(path, "event_type"), f"must be one of {', '.join(_PUBLISH)} or error")
    response = service_pb2.PublishResponse()
    part = getattr(response, _PUBLISH[name])
    part.SetInParent()
    SPELLING.read_fields(given, part, path, _HEAD)
    return _stream_id(given, path), response


def _event(event: pb.StreamEvent, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "event_type": event_name(event.event_type),
        "stream_id": event.stream_id,
        "node_id": event.node_id,
        "pin_name": event.pin_name,
        "sequence": event.sequence,
        "payload": payload,
        "timestamp": SPELLING.write(event.timestamp) if event.HasField("timestamp") else None,
    }


def _publish_event(event: service_pb2.PublishEvent, payload: dict[str, Any]) -> dict[str, Any]:
    return {"event_type": event_name(event.event_type), "sequence": event.sequence, "payload": payload}


def _payload_apart(payload: pb.StreamPayload) -> tuple[dict[str, Any], bytes | None]:
    data: bytes | None = None
    spelled: dict[str, Any] = {}
    if payload.HasField("data"):
        spelled["data"], data = chunk_apart(payload.data)
    if payload.HasField("metadata"):
        spelled["metadata"] = SPELLING.write(payload.metadata)
    if payload.HasField("error"):
        spelled["error"] = SPELLING.write(payload.error)
    return spelled, data


def _payload(given: Mapping[str, Any], path: str, data: bytes | None) -> pb.StreamPayload | None:
    where = at(path, "payload")
    payload: pb.StreamPayload = SPELLING.read(given.get("payload", {}), pb.StreamPayload, where)
    if data is not None and not payload.HasField("data"):
        raise InvalidRequest.of_field(at(where, "data"), "must be a chunk of media: bytes came beside the JSON")
    if payload.HasField("data"):
        _put_data(payload.data, data, at(where, "data"))
    return payload if payload.ByteSize() else None


def _put_data(chunk: chunk_pb2.Chunk, data: bytes | None, path: str) -> None:
    media = detached_media(chunk)
    if media is None and data is not None:
        raise InvalidRequest.of_field(path, "must be media with the encoding binary: bytes came beside the JSON")
    if media is None:
        return
    if data is None:
        where = at(at(path, chunk.WhichOneof("payload") or ""), "data")
        raise InvalidRequest.of_field(where, "is missing: bytes within JSON are base64")
    media.binary = data


def _event_type(value: Any, keys: frozenset[str], path: str) -> pb.StreamEventType.ValueType:
    name = known(value, keys, path).get("event_type")
    if not isinstance(name, str) or name not in EVENT_TYPES:
        raise InvalidRequest.of_field(at(path, "event_type"), f"must be one of {', '.join(EVENT_TYPES)}")
    return EVENT_TYPES[name]


def _error(stream_id: str, error: MeshError) -> dict[str, Any]:
    return {"event_type": "error", "stream_id": stream_id, "error": status_object(error.to_status())}


def _error_from_object(value: Any, path: str) -> tuple[str, MeshError]:
    given = known(value, _ERROR_KEYS, path)
    status = status_from_object(given.get("error"), at(path, "error"))
    return _stream_id(given, path), MeshError.from_status(status)


def _stream_id(given: Mapping[str, Any], path: str) -> str:
    stream_id = given.get("stream_id", "")
    if not isinstance(stream_id, str):
        raise InvalidRequest.of_field(at(path, "stream_id"), "must be text")
    return stream_id
