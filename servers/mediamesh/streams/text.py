"""Deliveries as text: in the event envelope or that of results, as Server-Sent Events or as lines of JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mediamesh.api.stream.v1 import stream_pb2 as pb
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Done, ResultMeta
from mediamesh.wire import result_json, stream_json
from mediamesh.wire.chunks import is_terminal
from mediamesh.wire.errors import MeshError
from mediamesh.wire.strict_json import dumps

if TYPE_CHECKING:
    from mediamesh.streams.events import Event

__all__ = ["NDJSON", "SSE", "EventText", "ResultText", "Text", "text_of"]

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

Control = pb.StreamGap | pb.StreamHeartbeat | pb.StreamGoAway
Layout = Callable[[str, int | None, Any], bytes]
"""Lays an object out: its name, the sequence that a reader has with it, if any, and itself."""


class Text(Protocol):
    """How one reader gets a stream; it may remember what it has said."""

    def event(self, event: Event) -> bytes:
        """Return an event as text."""
        ...

    def control(self, frame: Control) -> bytes:
        """Return what is no event as text."""
        ...

    def error(self, error: MeshError) -> bytes:
        """Return why the reading failed as text."""
        ...


def text_of(media_type: str, envelope: str, stream_id: str, *, after: int) -> Text:
    """Return how a reader gets a stream.

    Args:
        media_type: `SSE` or `NDJSON`.
        envelope: ``result`` for results; all else is events.
        stream_id: The stream.
        after: Sequence of the last event that the reader has.
    """
    if envelope == "result":
        return ResultText(media_type, is_resumed=after > 0)
    return EventText(media_type, stream_id)


def _server_sent(name: str, sequence: int | None, spelled: Any) -> bytes:
    # Names are ours, numbers are numbers, and JSON of one line has no other line in it.
    number = f"id: {sequence}\n" if sequence is not None else ""
    return f"{number}event: {name}\ndata: {dumps(spelled)}\n\n".encode()


def _line(_name: str, _sequence: int | None, spelled: Any) -> bytes:
    return f"{dumps(spelled)}\n".encode()


_LAYOUTS: dict[str, Layout] = {SSE: _server_sent, NDJSON: _line}


class EventText:
    """The event envelope; each event is spelled once for all readers."""

    def __init__(self, media_type: str, stream_id: str) -> None:
        self._media_type = media_type
        self._layout = _LAYOUTS[media_type]
        self._stream_id = stream_id

    def event(self, event: Event) -> bytes:
        """Return an event as text."""
        text = event.rendered.get(self._media_type)
        if text is None:
            spelled = stream_json.event_object(pb.StreamEvent.FromString(event.data))
            text = event.rendered[self._media_type] = self._layout(spelled["event_type"], event.sequence, spelled)
        return text

    def control(self, frame: Control) -> bytes:
        """Return what is no event as text; a heartbeat among Server-Sent Events is a comment."""
        if isinstance(frame, pb.StreamHeartbeat) and self._media_type == SSE:
            return _comment(frame)
        spelled = stream_json.frame_object(self._stream_id, frame)
        return self._layout(spelled["event_type"], _read_to(frame), spelled)

    def error(self, error: MeshError) -> bytes:
        """Return why the reading failed as text."""
        return self._layout("error", None, stream_json.frame_object(self._stream_id, error))


class ResultText:
    """The envelope of structured results: begins with ``ok`` and ends with ``final``, or with an error.

    A stream that says neither of itself, as one of plain text, gets both.
    """

    def __init__(self, media_type: str, *, is_resumed: bool) -> None:
        self._media_type = media_type
        self._layout = _LAYOUTS[media_type]
        self._form = f"{media_type} result"
        self._has_begun = is_resumed
        self._is_over = False

    def event(self, event: Event) -> bytes:
        """Return an event as text; empty when the envelope has no place for it."""
        decoded = pb.StreamEvent.FromString(event.data)
        match decoded.event_type:
            case pb.STREAM_EVENT_TYPE_STREAM_DATA:
                return self._chunk(event, decoded.payload.data)
            case pb.STREAM_EVENT_TYPE_STREAM_END if not self._is_over:
                return self._begin() + self._lay(event.sequence, result_json.result_object(Chunk(done=Done()), 0))
            case pb.STREAM_EVENT_TYPE_STREAM_ERROR if not self._is_over:
                error = MeshError.from_status(decoded.payload.error)
                return self._lay(event.sequence, result_json.error_object(error))
        # An id alone moves a reader's cursor, and it hears nothing.
        return f"id: {event.sequence}\n\n".encode() if self._media_type == SSE else b""

    def control(self, frame: Control) -> bytes:
        """Return what is no event as text; a heartbeat among Server-Sent Events is a comment."""
        if isinstance(frame, pb.StreamHeartbeat) and self._media_type == SSE:
            return _comment(frame)
        position = _read_to(frame)
        spelled = result_json.control_object(frame, _position(frame))
        return self._lay(position, spelled)

    def error(self, error: MeshError) -> bytes:
        """Return why the reading failed as text."""
        return self._layout("error", None, result_json.error_object(error))

    def _chunk(self, event: Event, chunk: Chunk) -> bytes:
        text = event.rendered.get(self._form)
        if text is None:
            spelled = result_json.result_object(chunk, event.sequence)
            text = event.rendered[self._form] = self._lay(event.sequence, spelled)
        self._is_over = self._is_over or is_terminal(chunk)
        if chunk.WhichOneof("payload") in {"meta", "error"}:
            self._has_begun = True
        return self._begin() + text

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return self._lay(None, result_json.result_object(Chunk(meta=ResultMeta()), 0))

    def _lay(self, sequence: int | None, spelled: dict[str, Any]) -> bytes:
        return self._layout(result_json.result_name(spelled), sequence, spelled)


def _comment(heartbeat: pb.StreamHeartbeat) -> bytes:
    return f": heartbeat {heartbeat.last_sequence}\n\n".encode()


def _read_to(frame: Control) -> int | None:
    """Return the sequence that a reader has with a frame; None when it has no more than before."""
    return frame.last_sequence if isinstance(frame, pb.StreamGap) else None


def _position(frame: Control) -> int:
    return int(frame.resume_token or 0) if isinstance(frame, pb.StreamGoAway) else frame.last_sequence
