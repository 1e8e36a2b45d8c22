"""``mediamesh stream tail``: reads a stream on any edge."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.console import Console

from mediamesh.api.stream.v1.stream_pb2 import (
    STREAM_EVENT_TYPE_STREAM_ERROR,
    STREAM_STATE_FAILED,
    StreamEvent,
    StreamGap,
)
from mediamesh.cli.door import Server, complete, target
from mediamesh.client import Mesh
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.stream_json import chunk_object, frame_object
from mediamesh.wire.strict_json import dumps

if TYPE_CHECKING:
    from google.rpc import status_pb2

    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Edge", "tail"]


class Edge(StrEnum):
    """The edges on which a stream can be read."""

    GRPC = "grpc"
    SSE = "sse"
    WS = "ws"
    NDJSON = "ndjson"


class _Reads(Protocol):
    def subscribe(
        self, stream_id: str, *, after_sequence: int = 0, subscriber_id: str = "", patience: float = 60.0
    ) -> AsyncGenerator[StreamEvent | StreamGap]: ...


def tail(
    stream: Annotated[str, typer.Argument(help="Id of the stream.")],
    *,
    edge: Annotated[Edge, typer.Option(help="How to read it.")] = Edge.GRPC,
    after: Annotated[int, typer.Option(min=0, help="Sequence of the last event that you have; 0 for all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one line of JSON.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds without a word from any server to bear.")] = 60.0,
    server: Server = "",
    port: Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")] = 8080,
) -> None:
    """Follow a stream through breaks of the connection; exit 0 only if it ended well.

    Text goes to standard output as it came; what else there is, gaps and errors are told on standard error.
    """
    complete(_tail(target(server, port), stream, edge, after=after, as_json=as_json, patience=patience))


async def _tail(door: str, stream_id: str, edge: Edge, *, after: int, as_json: bool, patience: float) -> None:
    show = _Lines(stream_id) if as_json else _Text()
    last: StreamEvent | StreamGap | None = None
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(Mesh(door))
        reader = await _reader(edge, door, mesh, stack)
        items = reader.subscribe(stream_id, after_sequence=after, subscriber_id=uuid.uuid4().hex, patience=patience)
        async with aclosing(items):
            async for last in items:
                if isinstance(last, StreamGap):
                    _note(f"Events {last.first_sequence} to {last.last_sequence} are lost.")
                show(last)
        if last is None:
            # It had ended where the reader was already.
            stream = await mesh.streams.get(stream_id)
            if stream.state == STREAM_STATE_FAILED:
                raise _failure(stream.end.error, stream.end.reason)
            return
    if isinstance(last, StreamEvent) and last.event_type == STREAM_EVENT_TYPE_STREAM_ERROR:
        raise _failure(last.payload.error, "")


async def _reader(edge: Edge, door: str, mesh: Mesh, stack: AsyncExitStack) -> _Reads:
    """Return what reads over an edge.

    Raises:
        InvalidRequest: what the edge needs is not installed.
    """
    try:
        match edge:
            case Edge.SSE:
                from mediamesh.client.edges.sse import SseStreams  # noqa: PLC0415 - brought by an extra

                return await stack.enter_async_context(SseStreams(door))
            case Edge.NDJSON:
                from mediamesh.client.edges.ndjson import NdjsonStreams  # noqa: PLC0415

                return await stack.enter_async_context(NdjsonStreams(door))
            case Edge.WS:
                from mediamesh.client.edges.websocket import WebSocketStreams  # noqa: PLC0415

                return await stack.enter_async_context(WebSocketStreams(door))
    except ImportError as error:
        raise InvalidRequest.of_field("--edge", str(error)) from error
    return mesh.streams


class _Lines:
    """Every event as one line of JSON."""

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id

    def __call__(self, item: StreamEvent | StreamGap) -> None:
        sys.stdout.write(dumps(frame_object(self._stream_id, item)) + "\n")
        sys.stdout.flush()


class _Text:
    """Text as it came, and the rest as notes."""

    def __call__(self, item: StreamEvent | StreamGap) -> None:
        if isinstance(item, StreamEvent) and item.payload.HasField("data"):
            text = _text_of(item.payload.data)
            if text is None:
                _note(_in_short(item.payload.data))
            else:
                sys.stdout.write(text)
                sys.stdout.flush()


def _text_of(chunk: Chunk) -> str | None:
    """Return the text of a chunk that is one piece of the whole; None for what is not."""
    match chunk.WhichOneof("payload"):
        case "content":
            return chunk.content.text
        case "delta":
            return chunk.delta.text
    return None


def _in_short(chunk: Chunk) -> str:
    kind = chunk.WhichOneof("payload") or ""
    if kind in {"media", "attachment", "attachment_complete"}:
        media = getattr(chunk, kind)
        pieces = f" {media.chunk_index + 1}/{media.total_chunks}" if media.total_chunks else ""
        return f"{kind}{pieces} {media.metadata.mime_type} {media.metadata.filename}, {len(media.binary)} bytes"
    return f"{kind} {dumps(chunk_object(chunk).get(kind))}"


def _note(text: str) -> None:
    short = text if len(text) <= 300 else f"{text[:300]}…"
    Console(stderr=True).print(short, highlight=False, markup=False, soft_wrap=True)


def _failure(status: status_pb2.Status, reason: str) -> MeshError:
    """Return why a stream failed, with all that is known."""
    return (
        MeshError.from_status(status)
        if status.code
        else MeshError(f"The stream failed: {reason or 'no reason given'}.")
    )
