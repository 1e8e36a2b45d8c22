"""Reads streams, and publishes to them, over WebSocket."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent, PublishOpen, PublishRequest, PublishResponse
from mediamesh.client.edges.http import base_url, error_of_answer, http_client, stream_of
from mediamesh.client.edges.text import frame_of
from mediamesh.client.streams.publisher import (
    MAX_UNACKNOWLEDGED,
    MAX_UNACKNOWLEDGED_BYTES,
    Publisher,
    publishing,
)
from mediamesh.client.streams.reading import Frame, Place, resumed
from mediamesh.wire.errors import InvalidRequest, MeshError, StreamInterrupted, Unavailable
from mediamesh.wire.stream_json import publish_event_apart, publish_frame_from_object
from mediamesh.wire.strict_json import dumps, loads

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus, WebSocketException
except ImportError as missing:  # pragma: no cover - the extra is installed where tests run
    raise ImportError("Streams over WebSocket need websockets; pip install 'mediamesh[edges]' brings it.") from missing

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["WebSocketStreams"]

_CONNECT_SECONDS = 10.0
_PING_SECONDS = 5.0
_GOODBYE_SECONDS = 0.2
_LENGTH_BYTES = 4
# The largest event as base64, and what is around it.
_LONGEST_FRAME = 32 * 1024 * 1024


class WebSocketStreams:
    """Reads streams at a door and publishes to them; an async context manager.

    Args:
        target: ``host:port`` of the door, or its address.
    """

    def __init__(self, target: str = "127.0.0.1:8080") -> None:
        self._base = base_url(target).replace("http", "ws", 1)
        self._http = http_client(target, _CONNECT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def subscribe(
        self,
        stream_id: str,
        *,
        after_sequence: int = 0,
        subscriber_id: str = "",
        allow_gap: bool = False,
        patience: float = 60.0,
    ) -> AsyncGenerator[StreamEvent | StreamGap]:
        """Yield the events of a stream, each once and in order, through breaks; as `StreamClient.subscribe` does."""
        name = subscriber_id or uuid.uuid4().hex
        return resumed(
            lambda place: self._read(stream_id, place, name),
            after_sequence=after_sequence,
            patience=patience,
            allow_gap=allow_gap,
        )

    def publish(
        self,
        stream_id: str,
        publish_token: str,
        *,
        producer_id: str = "",
        epoch: int = 0,
        max_unacknowledged: int = MAX_UNACKNOWLEDGED,
        max_unacknowledged_bytes: int = MAX_UNACKNOWLEDGED_BYTES,
        patience: float = 60.0,
    ) -> AbstractAsyncContextManager[Publisher]:
        """Publish to a stream for as long as the block lasts, through breaks; as `StreamClient.publish` does."""
        return publishing(
            self._publish,
            lambda: stream_of(self._http, stream_id),
            opening=PublishOpen(stream_id=stream_id, publish_token=publish_token, producer_id=producer_id, epoch=epoch),
            max_unacknowledged=max_unacknowledged,
            max_unacknowledged_bytes=max_unacknowledged_bytes,
            patience=patience,
        )

    async def _read(self, stream_id: str, place: Place, subscriber_id: str) -> AsyncGenerator[Frame]:
        query = {"after": str(place.after), "subscriber_id": subscriber_id, "allow_gap": str(int(place.is_resumed))}
        async with self._socket(stream_id, query) as socket:
            async for message in _messages(socket, ping_seconds=_PING_SECONDS):
                text, data = _parts(message)
                yield frame_of(text, data=data)

    async def _publish(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[PublishResponse]:
        opening = PublishRequest.FromString(await anext(requests)).open
        query = {"publish": "1", "token": opening.publish_token, "producer_id": opening.producer_id}
        if opening.epoch:
            query["epoch"] = str(opening.epoch)
        async with self._socket(opening.stream_id, query) as socket:
            sending = asyncio.create_task(_send(socket, requests))
            try:
                async for message in _messages(socket):
                    yield _answer_of(message)
            finally:
                sending.cancel()
                await asyncio.wait([sending])

    @asynccontextmanager
    async def _socket(self, stream_id: str, query: dict[str, str]) -> AsyncGenerator[ClientConnection]:
        url = f"{self._base}/api/v1/streams/{quote(stream_id, safe='')}/ws?{urlencode(query)}"
        try:
            async with connect(
                url,
                open_timeout=_CONNECT_SECONDS,
                # A reader that pauses does not read its pongs either, and one that waits asks by itself.
                ping_interval=None,
                # All that matters has been said; a proxy may take a second to close its side.
                close_timeout=_GOODBYE_SECONDS,
                max_size=_LONGEST_FRAME,
                compression=None,
            ) as socket:
                yield socket
        except InvalidStatus as error:
            raise error_of_answer(error.response.status_code, error.response.body or b"") from error
        except ConnectionClosed as error:
            raise StreamInterrupted(f"The connection broke off: {error}.") from error
        except (OSError, WebSocketException) as error:
            raise Unavailable(f"The door cannot be reached: {error or type(error).__name__}.") from error


async def _messages(socket: ClientConnection, *, ping_seconds: float | None = None) -> AsyncGenerator[str | bytes]:
    """Yield what comes until the server closes in order; any other close raises.

    Raises:
        StreamInterrupted: nothing came for so many seconds, and no answer to a ping within as many again.
    """
    pong: Awaitable[float] | None = None
    try:
        while True:
            try:
                async with asyncio.timeout(ping_seconds):
                    message = await socket.recv()
            except TimeoutError:
                if pong is not None and not asyncio.ensure_future(pong).done():
                    raise StreamInterrupted(f"The server answered no ping for {ping_seconds} s.") from None
                pong = await socket.ping()
            else:
                pong = None
                yield message
    except ConnectionClosedOK:
        return


def _parts(message: str | bytes) -> tuple[str | bytes, bytes | None]:
    """Return the JSON of a message, and the bytes of media that came with it."""
    if isinstance(message, str):
        return message, None
    end = _LENGTH_BYTES + int.from_bytes(message[:_LENGTH_BYTES], "big")
    return message[_LENGTH_BYTES:end], message[end:]


def _message_of(event: PublishEvent) -> str | bytes:
    """Return an event as it is sent: JSON, or JSON and bytes where it carries media."""
    spelled, data = publish_event_apart(event)
    text = dumps(spelled)
    if data is None:
        return text
    head = text.encode()
    return b"".join((len(head).to_bytes(_LENGTH_BYTES, "big"), head, data))


def _answer_of(message: str | bytes) -> PublishResponse:
    try:
        frame = publish_frame_from_object(loads(message))[1]
    except InvalidRequest as error:
        raise StreamInterrupted(f"The answer is damaged: {error.text}") from error
    if isinstance(frame, MeshError):
        raise frame
    return frame


async def _send(socket: ClientConnection, requests: AsyncIterator[bytes]) -> None:
    try:
        async for request in requests:
            await socket.send(_message_of(PublishRequest.FromString(request).event))
        await socket.close()
    except ConnectionClosed:
        return  # who reads learns why
