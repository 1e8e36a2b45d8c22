"""How methods of the edge become handlers of gRPC: what they return, or raise, becomes an answer in one place."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.inference.v2 import inference_edge_service_pb2 as edge_pb
from mediamesh.inference.rest.errors import refusal
from mediamesh.kit.boundary import checked
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["EDGE_SERVICE", "JSON", "kept_rules", "parsed", "register_edge"]

DESCRIPTOR = edge_pb.DESCRIPTOR.services_by_name["InferenceEdgeService"]
EDGE_SERVICE = DESCRIPTOR.full_name
JSON = "application/json"
_Message = TypeVar("_Message", bound="Message")


def register_edge(servicer: object, server: grpc.aio.Server) -> None:
    """Add the servicer to a server; it takes and gives bytes, as faults in either are answers too."""
    handlers = {method.name: _handler(servicer, method) for method in DESCRIPTOR.methods}
    server.add_registered_method_handlers(EDGE_SERVICE, handlers)


def _handler(servicer: object, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    behaviour = getattr(servicer, method.name)
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_streamed(behaviour))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_streamed(behaviour))
    return grpc.unary_unary_rpc_method_handler(_answered(behaviour, GetMessageClass(method.input_type)))


def _answered(behaviour: Callable[[Any, Context], Awaitable[Any]], kind: type[Message]) -> Any:
    async def answer(data: bytes, context: Context) -> bytes:
        try:
            value = await behaviour(parsed(kind, data), context)
            body = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        except Exception as error:  # noqa: BLE001 - here errors become answers
            headers, body = refusal(error)
            await context.send_initial_metadata(headers)
        return HttpBody(content_type=JSON, data=body).SerializeToString()

    return answer


def _streamed(behaviour: Callable[[Any, Context], AsyncGenerator[HttpBody]]) -> Any:
    async def answer(data: Any, context: Context) -> AsyncGenerator[bytes]:
        is_begun = False
        try:
            async with aclosing(behaviour(data, context)) as parts:
                async for part in parts:
                    is_begun = True
                    yield part.SerializeToString()
        except Exception as error:
            if is_begun:
                raise  # the body is under way: that it breaks off is all that can be said
            headers, body = refusal(error)
            await context.send_initial_metadata(headers)
            yield HttpBody(content_type=JSON, data=body).SerializeToString()

    return answer


def parsed(kind: type[Message], data: bytes) -> Any:
    """Return a message that keeps the rules of its fields.

    Raises:
        InvalidRequest: the bytes are none, or one that breaks a rule.
    """
    try:
        return checked(kind.FromString(data))
    except DecodeError:
        raise InvalidRequest(f"The message is no {kind.DESCRIPTOR.name}.") from None


def kept_rules(request: _Message) -> _Message:
    """Return a message that keeps the rules of its fields.

    Raises:
        InvalidRequest: it breaks one.
    """
    checked(request)
    return request
