"""One reading of a stream over HTTP, and errors as they come there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from google.protobuf import json_format
from google.rpc import status_pb2

from mediamesh.api.stream.v1.stream_pb2 import STREAM_STATE_ENDED, STREAM_STATE_FAILED
from mediamesh.api.stream.v1.stream_service_pb2 import GetStreamResponse
from mediamesh.wire.errors import (
    InvalidRequest,
    MeshError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    StreamInterrupted,
    Unavailable,
)
from mediamesh.wire.status_json import status_from_object
from mediamesh.wire.strict_json import loads

try:
    import httpx
except ImportError as missing:  # pragma: no cover - the extra is installed where tests run
    raise ImportError("Streams over HTTP need httpx; pip install 'mediamesh[edges]' brings it.") from missing

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream
    from mediamesh.client.streams.reading import Place

__all__ = [
    "base_url",
    "check_over",
    "error_of_answer",
    "http_client",
    "is_at_the_end",
    "passing_errors",
    "reading",
    "stream_of",
]

_CONNECT_SECONDS = 5.0
_LONGEST_ERROR = 64 * 1024
# What a proxy says by itself, without a word of the mesh.
_BY_STATUS: dict[int, type[MeshError]] = {
    400: InvalidRequest,
    403: PermissionDenied,
    404: NotFound,
    429: Unavailable,
    500: StreamInterrupted,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def base_url(target: str) -> str:
    """Return the address of a door that was given as ``host:port`` or as an address."""
    return (target if "://" in target else f"http://{target}").rstrip("/")


def http_client(target: str, silence: float) -> httpx.AsyncClient:
    """Return a client of a door that bears so many seconds of silence."""
    timeout = httpx.Timeout(silence, connect=_CONNECT_SECONDS, pool=None)
    # Each reader holds a connection for as long as it reads.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
    url = base_url(target)
    # Reading all certificates takes a while, and only https needs them.
    return httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, verify=not url.startswith("http://"))


@asynccontextmanager
async def reading(
    client: httpx.AsyncClient, stream_id: str, place: Place, *, accept: str, subscriber_id: str
) -> AsyncGenerator[httpx.Response]:
    """Yield the open answer to a reader of a stream.

    Raises:
        MeshError: what the server said, or how the connection failed.
    """
    headers = {"accept": accept}
    query = {"subscriber_id": subscriber_id}
    if place.is_resumed:
        headers["last-event-id"] = str(place.after)
    else:
        query["after"] = str(place.after)
    async with (
        passing_errors(),
        client.stream("GET", f"/api/v1/streams/{quote(stream_id, safe='')}", params=query, headers=headers) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise error_of_answer(response.status_code, await response.aread())
        yield response


async def stream_of(client: httpx.AsyncClient, stream_id: str) -> Stream:
    """Return a stream as it stands.

    Raises:
        NotFound: there is none, or no more.
    """
    async with passing_errors():
        response = await client.get(f"/v1/streams/{quote(stream_id, safe='')}")
    if response.status_code != httpx.codes.OK:
        raise error_of_answer(response.status_code, response.content)
    return json_format.Parse(response.content, GetStreamResponse(), ignore_unknown_fields=True).stream


async def check_over(client: httpx.AsyncClient, stream_id: str, position: int) -> None:
    """Return when nothing follows a position: over HTTP, a body that breaks off may look like one that ends.

    Raises:
        StreamInterrupted: something does, or will.
    """
    stream = await stream_of(client, stream_id)
    if stream.state not in {STREAM_STATE_ENDED, STREAM_STATE_FAILED} or stream.last_sequence > position:
        raise StreamInterrupted(
            f"The answer ended after event {position} of stream {stream_id}, and the stream has not."
        )


@asynccontextmanager
async def passing_errors() -> AsyncGenerator[None]:
    """Turn failures of the connection into errors of the tree."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unavailable(f"The door cannot be reached: {error or type(error).__name__}.") from error
    except httpx.TransportError as error:
        raise StreamInterrupted(f"The connection broke off: {error or type(error).__name__}.") from error


def error_of_answer(status_code: int, body: bytes | bytearray) -> MeshError:
    """Return the error that an answer spells; what its status says when it spells none."""
    try:
        return MeshError.from_status(_status(body[:_LONGEST_ERROR]))
    except (MeshError, json_format.ParseError):
        kind = _BY_STATUS.get(status_code, MeshError)
        return kind(f"The door answered {status_code}: {body[:200].decode(errors='replace')}", http_status=status_code)


def _status(body: bytes | bytearray) -> status_pb2.Status:
    """Read a status: ours with names, or as Envoy's transcoder writes it, with numbers."""
    spelled = loads(body)
    if isinstance(spelled, dict) and "error" in spelled:
        spelled = spelled["error"]
    if isinstance(spelled, dict) and isinstance(spelled.get("code"), int):
        return json_format.ParseDict(spelled, status_pb2.Status(), ignore_unknown_fields=True)
    return status_from_object(spelled)


def is_at_the_end(error: MeshError) -> bool:
    """Return whether an error says that a stream has ended where the reader is."""
    return isinstance(error, OutOfRange) and error.metadata.get("ended") == "true"
