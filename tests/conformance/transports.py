"""What a transport of streams must offer to be held to the suite, and those that there are.

A new transport is a class here and a name in ``TRANSPORTS``; nothing else in the suite knows one from another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamHeartbeat
from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client import Publisher, StreamClient, connect
from mediamesh.client.edges.http import http_client, reading
from mediamesh.client.edges.ndjson import NdjsonStreams
from mediamesh.client.edges.sse import SseStreams
from mediamesh.client.edges.websocket import WebSocketStreams
from mediamesh.client.streams import Place

__all__ = ["TRANSPORTS", "Addresses", "Publishes", "Transport"]


@dataclass(frozen=True)
class Addresses:
    """Where the streams server is: by itself, and through the door."""

    server: str
    door: str


class Transport(Protocol):
    """Reads streams."""

    def subscribe(
        self,
        stream_id: str,
        *,
        after_sequence: int = 0,
        subscriber_id: str = "",
        allow_gap: bool = False,
        patience: float = 60.0,
    ) -> AsyncGenerator[StreamEvent | StreamGap]:
        """Yield events and gaps as `StreamClient.subscribe` does."""
        ...

    async def heartbeat(self, stream_id: str, after: int) -> int:
        """Read from a position until the first heartbeat; return the sequence that it tells."""
        ...


class Publishes(Transport, Protocol):
    """Reads streams, and publishes to them."""

    def publish(
        self, stream_id: str, publish_token: str, *, producer_id: str = "", epoch: int = 0
    ) -> AbstractAsyncContextManager[Publisher]:
        """Publish as `StreamClient.publish` does."""
        ...


class Grpc(StreamClient):
    """Native gRPC."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self._raw = StreamServiceStub(channel)

    async def heartbeat(self, stream_id: str, after: int) -> int:
        call = self._raw.Subscribe(pb.SubscribeRequest(stream_id=stream_id, after_sequence=after))
        try:
            async for response in call:
                if response.HasField("heartbeat"):
                    return response.heartbeat.last_sequence
        finally:
            call.cancel()
        raise AssertionError("no heartbeat came")


class Sse(SseStreams):
    """Server-Sent Events: a heartbeat is a comment, which no client shows."""

    async def heartbeat(self, stream_id: str, after: int) -> int:
        async with (
            http_client(str(self._http.base_url), 30) as http,
            reading(http, stream_id, Place(after, is_resumed=False), accept=self.media_type, subscriber_id="") as got,
        ):
            async for line in got.aiter_lines():
                if line.startswith(": heartbeat "):
                    return int(line.removeprefix(": heartbeat "))
        raise AssertionError("no heartbeat came")


class Ndjson(NdjsonStreams):
    """Lines of JSON."""

    async def heartbeat(self, stream_id: str, after: int) -> int:
        return await _heartbeat(self._read(stream_id, Place(after, is_resumed=False), ""))


class WebSocket(WebSocketStreams):
    """WebSocket."""

    async def heartbeat(self, stream_id: str, after: int) -> int:
        return await _heartbeat(self._read(stream_id, Place(after, is_resumed=False), ""))


async def _heartbeat(frames: AsyncGenerator[Any]) -> int:
    async with aclosing(frames):
        async for frame in frames:
            if isinstance(frame, StreamHeartbeat):
                return frame.last_sequence
    raise AssertionError("no heartbeat came")


@asynccontextmanager
async def _grpc(target: str) -> AsyncGenerator[Grpc]:
    async with connect(target) as channel:
        yield Grpc(channel)


TRANSPORTS: Mapping[str, Callable[[Addresses], AbstractAsyncContextManager[Transport]]] = {
    "grpc": lambda at: _grpc(at.server),
    "grpc-envoy": lambda at: _grpc(at.door),
    "sse": lambda at: Sse(at.door),
    "ndjson": lambda at: Ndjson(at.door),
    "websocket": lambda at: WebSocket(at.door),
}
