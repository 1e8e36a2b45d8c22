"""Streams for clients that speak plain HTTP: Server-Sent Events, or lines of JSON where ``Accept`` asks for them.

What is wrong before the first byte is a status, which Envoy's transcoder makes one of HTTP. What goes wrong after it is
an event named ``error``, as over HTTP/1.1 a body that breaks off looks like one that ends.

An ``EventSource`` connects again whenever a body ends, the end of the stream included. A page that does not close it on
``stream_end`` or ``stream_error`` comes back with ``Last-Event-ID`` at the end of the stream, and gets the status
OUT_OF_RANGE with ``ended`` in its metadata: after a status an EventSource stays away.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_edge_service_pb2 import DESCRIPTOR, ReadStreamRequest
from mediamesh.api.stream.v1.stream_service_pb2 import SubscribeRequest
from mediamesh.streams.events import Batch
from mediamesh.streams.text import NDJSON, SSE, text_of
from mediamesh.wire.errors import InvalidRequest, MeshError, OutOfRange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from mediamesh.streams.broker import Broker
    from mediamesh.streams.subscription import Subscription
    from mediamesh.streams.text import Text

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["EDGE_SERVICE", "StreamEdgeServicer", "register_edge"]

EDGE_SERVICE = DESCRIPTOR.services_by_name["StreamEdgeService"].full_name

_RETRY = b"retry: 1000\n\n"
_DIGITS_OF_64_BITS = 20
_HEADERS = (("cache-control", "no-cache"),)


class StreamEdgeServicer:
    """Answers for a broker in text."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def ReadStream(self, request: ReadStreamRequest, context: Context) -> AsyncGenerator[bytes]:
        """Stream the events of a stream as text; each is spelled once for all its readers."""
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        media_type = _media_type(headers)
        subscribe = _subscribe_request(request, headers.get("last-event-id", ""))
        async with self._broker.subscribe(subscribe) as subscription:
            after = subscription.position
            if media_type == SSE:
                _check_goes_on(subscription.stream, after)
            await context.send_initial_metadata(_HEADERS)
            # At once, so that a page hears that it is connected.
            yield _body(media_type, _RETRY if media_type == SSE else b"")
            text = text_of(media_type, request.envelope, request.stream_id, after=after)
            async with aclosing(_spelled(subscription, text)) as parts:
                async for part in parts:
                    yield _body(media_type, part)


def register_edge(servicer: StreamEdgeServicer, server: grpc.aio.Server) -> None:
    """Add the servicer to a server; it gives the bytes of its responses itself."""
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
        servicer.ReadStream, request_deserializer=ReadStreamRequest.FromString, response_serializer=None
    )
    server.add_registered_method_handlers(EDGE_SERVICE, {"ReadStream": handler})


async def _spelled(subscription: Subscription, text: Text) -> AsyncGenerator[bytes]:
    try:
        async for delivery in subscription:
            if isinstance(delivery, Batch):
                part = b"".join([text.event(event) for event in delivery.events])
            else:
                part = text.control(delivery)
            if part:
                yield part
    except MeshError as error:
        yield text.error(error)


def _body(media_type: str, part: bytes) -> bytes:
    return HttpBody(content_type=media_type, data=part).SerializeToString()


def _media_type(headers: Mapping[str, str]) -> str:
    accepted = headers.get("accept", "")
    return NDJSON if NDJSON in accepted and SSE not in accepted else SSE


def _subscribe_request(request: ReadStreamRequest, last_event_id: str) -> SubscribeRequest:
    after = _number(last_event_id, request.stream_id) if last_event_id else request.after
    return SubscribeRequest(
        stream_id=request.stream_id,
        after_sequence=after,
        # An EventSource that comes back cannot be asked whether it bears a gap; it is told of one.
        allow_gap=bool(last_event_id),
        subscriber_id=request.subscriber_id,
    )


def _number(last_event_id: str, stream_id: str) -> int:
    is_number = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < _DIGITS_OF_64_BITS
    if not is_number:
        raise InvalidRequest.of_field(
            "last-event-id", f"must be the number of an event, not {last_event_id[:64]!r}", stream_id=stream_id
        )
    return int(last_event_id)


def _check_goes_on(stream: stream_pb2.Stream, after: int) -> None:
    has_ended = stream.state in {stream_pb2.STREAM_STATE_ENDED, stream_pb2.STREAM_STATE_FAILED}
    if has_ended and after >= stream.last_sequence:
        raise OutOfRange(
            f"The stream {stream.stream_id} has ended with event {stream.last_sequence}; nothing follows.",
            stream_id=stream.stream_id,
            sequence=after,
            newest=stream.last_sequence,
            ended="true",
        )
