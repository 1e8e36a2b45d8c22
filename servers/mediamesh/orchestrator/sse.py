"""Events of a run as text: Server-Sent Events, or lines of JSON where ``Accept`` asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.json import to_json

__all__ = ["position", "text_of"]

_SSE, _NDJSON = "text/event-stream", "application/x-ndjson"
_RETRY_MS = 1000
_DIGITS_OF_64_BITS = 20


def position(last_event_id: str | None, after_sequence: int) -> int:
    """Return where to read on: after the id that the browser saw last, and else after what the address says.

    Raises:
        InvalidRequest: the id is not one that was sent.
    """
    if not last_event_id:
        return after_sequence
    is_number = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < _DIGITS_OF_64_BITS
    if not is_number:
        raise InvalidRequest.of_field("last-event-id", f"must be the number of an event, not {last_event_id[:64]!r}")
    return int(last_event_id)


def text_of(events: AsyncIterator[ExecutionEvent], accept: str) -> AsyncIterator[httpbody_pb2.HttpBody]:
    """Yield each event as text in the form that the header ``Accept`` asks for: lines where it names them alone."""
    return _lines(events) if _NDJSON in accept and _SSE not in accept else _server_sent(events)


async def _lines(events: AsyncIterator[ExecutionEvent]) -> AsyncIterator[httpbody_pb2.HttpBody]:
    """Yield each event as a line of JSON, heartbeats and gaps too; the last one is `execution_finished`."""
    async for event in events:
        yield httpbody_pb2.HttpBody(content_type=_NDJSON, data=f"{to_json(event)}\n".encode())


async def _server_sent(events: AsyncIterator[ExecutionEvent]) -> AsyncIterator[httpbody_pb2.HttpBody]:
    """Yield each event as a frame of `text/event-stream`; heartbeats are comments, and `done` follows the last one."""
    opened = False
    async for event in events:
        if not opened:
            # Not before the first event: an error before it is still a status, and not a stream.
            opened = True
            yield _frame(f"retry: {_RETRY_MS}\n\n")
        kind = event.WhichOneof("event")
        if kind == "heartbeat":
            yield _frame(f": heartbeat {event.heartbeat.last_sequence}\n\n")
            continue
        number = f"id: {event.sequence}\n" if event.sequence else ""
        yield _frame(f"{number}event: {kind}\ndata: {to_json(event)}\n\n")
        if kind == "execution_finished":
            yield _frame("event: done\ndata: {}\n\n")
            return


def _frame(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=_SSE, data=text.encode())
