"""Channels to the mesh: errors come back as the classes of the tree, and calls carry the caller's trace."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2
from opentelemetry import propagate
from opentelemetry.propagators.textmap import Setter

from mediamesh.wire.errors import MeshError, StreamInterrupted

if TYPE_CHECKING:
    Details = grpc.aio.ClientCallDetails

__all__ = ["MAX_MESSAGE_BYTES", "connect", "error_of"]

# A request may carry one image inline (20 MiB), and the envelope around it.
MAX_MESSAGE_BYTES = 21 * 1024 * 1024
_STATUS_KEY = "grpc-status-details-bin"


def connect(target: str) -> grpc.aio.Channel:
    """Return a channel to ``host:port``; close it, or use it as an async context manager."""
    return grpc.aio.insecure_channel(
        target.removeprefix("http://"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 60_000),
            # A server that restarts is found again within a second, not after grpc's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
        interceptors=[_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()],
    )


def error_of(failure: grpc.aio.AioRpcError) -> MeshError:
    """Return the failure of a call as an error of the tree."""
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            return MeshError.from_status(status_pb2.Status.FromString(value))
    code, text = failure.code(), failure.details() or ""
    if code is grpc.StatusCode.INTERNAL and "RST_STREAM" in text:
        # How a proxy reports a server that died in mid-stream.
        return StreamInterrupted(f"The connection broke off: {text}")
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


async def _translated(responses: AsyncIterable[Any]) -> AsyncIterator[Any]:
    try:
        async for response in responses:
            yield response
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure


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
        try:
            await call
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from failure
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
        return _translated(await continuation(_with_trace(client_call_details), request_iterator))
