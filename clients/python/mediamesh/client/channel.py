"""Channels to the mesh: errors come back as the classes of the tree, and calls carry the caller's trace."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from opentelemetry import propagate
from opentelemetry.propagators.textmap import Setter

from mediamesh.wire.errors import MeshError, StreamInterrupted, Unavailable

if TYPE_CHECKING:
    Details = grpc.aio.ClientCallDetails

__all__ = [
    "CORE_FAILURE",
    "MAX_MESSAGE_BYTES",
    "MAX_TENSORS_BYTES",
    "FirstStatus",
    "connect",
    "error_of",
    "message_limit",
]

# A request may carry one image inline (20 MiB), and the envelope around it.
MAX_MESSAGE_BYTES = 21 * 1024 * 1024
# A request to an inference server carries a batch of tensors.
MAX_TENSORS_BYTES = 64 * 1024 * 1024
CORE_FAILURE = "Internal error from Core"
# All that gRPC says of a call that came to a server that stops: no handler has seen it, nobody has cancelled it. See
# https://github.com/grpc/grpc/issues/41785.
_NOT_TAKEN = "CANCELLED"
_STATUS_KEY = "grpc-status-details-bin"
# A channel does not tell with which options it was made.
_LIMITS: WeakKeyDictionary[grpc.aio.Channel, int] = WeakKeyDictionary()


def connect(
    target: str,
    *,
    keepalive_seconds: float = 60.0,
    read_ahead_bytes: int | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """Return a channel to ``host:port``; close it, or use it as an async context manager.

    Args:
        target: ``host:port``, or ``http://host:port``.
        keepalive_seconds: Silence after which the connection is tried while calls run on it; one that does not answer
            within as much again, 20 s at most, is given up. Servers of other people may refuse to be asked more often
            than every five minutes.
        read_ahead_bytes: How much of each call may come before it is read; None for what gRPC finds out, which may be
            megabytes.
        max_message_bytes: Largest message that is sent or received.
    """
    # As long as gRPC measures the bandwidth, it lets windows grow.
    windows = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", read_ahead_bytes)]
    channel = grpc.aio.insecure_channel(
        target.removeprefix("http://"),
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", round(keepalive_seconds * 1000)),
            # Without the second, whose default is a minute, the first does not end a connection to nobody.
            ("grpc.keepalive_timeout_ms", round(min(keepalive_seconds, 20.0) * 1000)),
            ("grpc.http2.ping_timeout_ms", round(min(keepalive_seconds, 20.0) * 1000)),
            # A reader sends nothing for as long as it reads, and must find out all the same that nobody is there.
            ("grpc.http2.max_pings_without_data", 0),
            # A server that restarts is found again within a second, not after grpc's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            *(windows if read_ahead_bytes is not None else ()),
        ],
        interceptors=[_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()],
    )
    _LIMITS[channel] = max_message_bytes
    return channel


def message_limit(channel: grpc.aio.Channel) -> int | None:
    """Return the largest message of a channel that `connect` made; None for any other, of which nobody knows."""
    return _LIMITS.get(channel)


def error_of(failure: grpc.aio.AioRpcError) -> MeshError:
    """Return the failure of a call as an error of the tree."""
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            # An agent may send bytes that are no status; what it says beside them is left then.
            with suppress(DecodeError):
                return MeshError.from_status(status_pb2.Status.FromString(value))
    code, text = failure.code(), failure.details() or ""
    if code is grpc.StatusCode.INTERNAL and "RST_STREAM" in text:
        # How a proxy reports a server that died in mid-stream.
        return StreamInterrupted(f"The connection broke off: {text}")
    if code is grpc.StatusCode.CANCELLED and text == _NOT_TAKEN:
        return Unavailable("The server stops, and did not take the call.")
    return MeshError.from_status(status_pb2.Status(code=code.value[0], message=text))


def _with_trace(details: Details) -> Details:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    propagate.inject(metadata, setter=_SETTER)
    return details._replace(metadata=metadata)  # type: ignore[attr-defined,no-any-return]


class _MetadataSetter(Setter[grpc.aio.Metadata]):
    def set(self, carrier: grpc.aio.Metadata, key: str, value: str) -> None:
        if carrier.get(key) is None:
            carrier.add(key, value)


_SETTER = _MetadataSetter()


class FirstStatus:
    """Keeps the status that a server sent while its client was still sending.

    grpc.aio then fails the client's last write, and puts INTERNAL "Internal error from Core" over the status that came.

    Attributes:
        failure: What the server said; None when the call has not failed, or not been answered.
    """

    def __init__(self, call: grpc.aio.Call) -> None:
        self.failure: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        # Once a call is done these coroutines have nothing to wait for.
        code, details = _result(call.code()), _result(call.details())
        if self.failure is None and code is not grpc.StatusCode.OK and details != CORE_FAILURE:
            empty = grpc.aio.Metadata()
            self.failure = grpc.aio.AioRpcError(code, empty, _result(call.trailing_metadata()) or empty, details)


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    return None


async def _translated(responses: AsyncIterable[Any], first: FirstStatus | None = None) -> AsyncIterator[Any]:
    try:
        async for response in responses:
            yield response
    except grpc.aio.AioRpcError as failure:
        raise error_of((first and first.failure) or failure) from failure


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[Details, Any], Awaitable[Any]],
        client_call_details: Details,
        request: Any,
    ) -> Any:
        call = await continuation(_with_trace(client_call_details), request)
        try:
            await call
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from failure
        return call


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Callable[[Details, Any], Awaitable[Any]],
        client_call_details: Details,
        request_iterator: Any,
    ) -> Any:
        call = await continuation(_with_trace(client_call_details), request_iterator)
        first = FirstStatus(call)
        try:
            await call
        except grpc.aio.AioRpcError as failure:
            raise error_of(first.failure or failure) from failure
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[Details, Any], Awaitable[Any]],
        client_call_details: Details,
        request: Any,
    ) -> Any:
        return _translated(await continuation(_with_trace(client_call_details), request))


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Callable[[Details, Any], Awaitable[Any]],
        client_call_details: Details,
        request_iterator: Any,
    ) -> Any:
        call = await continuation(_with_trace(client_call_details), request_iterator)
        return _translated(call, FirstStatus(call))
