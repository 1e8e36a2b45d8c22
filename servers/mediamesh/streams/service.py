"""The gRPC side of the broker: unpack, ask, forward."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.chunk_pb2 import MEDIA_ENCODING_BINARY
from mediamesh.api.stream.v1.stream_pb2 import (
    STREAM_EVENT_TYPE_STREAM_DATA,
    STREAM_EVENT_TYPE_STREAM_START,
    StreamGap,
    StreamGoAway,
    StreamHeartbeat,
)
from mediamesh.kit.boundary import checked
from mediamesh.streams.events import Batch
from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor

    from mediamesh.api.stream.v1.chunk_pb2 import Media
    from mediamesh.streams.broker import Broker
    from mediamesh.streams.publication import Publication
    from mediamesh.streams.subscription import Delivery

    Context = grpc.aio.ServicerContext[Any, Any]
    Read = Callable[[], Awaitable[Any]]

__all__ = ["SERVICE", "StreamServicer", "frame_of", "is_plain", "register"]

_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["StreamService"]
SERVICE = _DESCRIPTOR.full_name
# The one gives the bytes of its responses, which were spelled once for all subscribers; the other takes bytes, as it
# knows which frames need no checking.
_SUBSCRIBE, _PUBLISH = "Subscribe", "Publish"
_SURE_CHARACTERS = 65_536 // 4
_SURE_SOURCE = 256
_SURE_BYTES = 1024 * 1024
_MEDIA_TYPES = frozenset(MediaType.values()) - {MediaType.MEDIA_TYPE_UNSPECIFIED}


class StreamServicer:
    """Answers for a broker."""

    def __init__(self, broker: Broker, capabilities: pb.GetCapabilitiesResponse) -> None:
        self._broker = broker
        self._capabilities = capabilities

    async def OpenStream(self, request: pb.OpenStreamRequest, context: Context) -> pb.OpenStreamResponse:
        """Open a stream."""
        return await self._broker.open(request)

    async def Publish(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[pb.PublishResponse]:
        """Take the events of a producer, and tell what becomes of them."""
        # By the context and not by the iterator, which is one more coroutine for each frame.
        opening = await _opening(context.read)
        async with self._broker.publish(opening) as publication:
            yield pb.PublishResponse(opened=publication.opened)
            feeding = asyncio.create_task(_feed(context.read, publication, opening.stream_id))
            try:
                async for response in publication:
                    yield response
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])

    async def Subscribe(self, request: pb.SubscribeRequest, context: Context) -> AsyncGenerator[bytes]:
        """Forward the events of a stream."""
        async with self._broker.subscribe(request) as subscription:
            async for delivery in subscription:
                yield delivery.frame() if isinstance(delivery, Batch) else _control(delivery)

    async def WatchStreams(
        self, request: pb.WatchStreamsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchStreamsResponse]:
        """Tell which streams come and go."""
        async with aclosing(self._broker.watch(request)) as frames:
            async for frame in frames:
                yield frame

    async def GetStream(self, request: pb.GetStreamRequest, context: Context) -> pb.GetStreamResponse:
        """Return one stream."""
        return pb.GetStreamResponse(stream=await self._broker.get(request.stream_id))

    async def ListStreams(self, request: pb.ListStreamsRequest, context: Context) -> pb.ListStreamsResponse:
        """List streams of a workspace, newest first."""
        return await self._broker.list(request)

    async def CloseStream(self, request: pb.CloseStreamRequest, context: Context) -> pb.CloseStreamResponse:
        """End a stream in place of its producer."""
        return pb.CloseStreamResponse(stream=await self._broker.close(request))

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Context) -> pb.GetCapabilitiesResponse:
        """Tell what streams can carry."""
        return self._capabilities


def register(servicer: StreamServicer, server: grpc.aio.Server) -> None:
    """Add the servicer to a server.

    The generated function would spell every event anew for every subscriber.
    """
    handlers = {method.name: _handler(servicer, method) for method in _DESCRIPTOR.methods}
    server.add_registered_method_handlers(SERVICE, handlers)


def _handler(servicer: StreamServicer, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    asks = "stream" if method.client_streaming else "unary"
    answers = "stream" if method.server_streaming else "unary"
    make = getattr(grpc, f"{asks}_{answers}_rpc_method_handler")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    deserializer = None if method.name == _PUBLISH else request.FromString
    serializer = None if method.name == _SUBSCRIBE else response.SerializeToString
    handler: grpc.RpcMethodHandler[Any, Any] = make(getattr(servicer, method.name), deserializer, serializer)
    return handler


async def _opening(read: Read) -> pb.PublishOpen:
    data = await read()
    if data is not grpc.aio.EOF:
        request = frame_of(data)
        if request.WhichOneof("frame") == "open":
            return request.open
    raise InvalidRequest.of_field("open", "must be the first frame")


async def _feed(read: Read, publication: Publication, stream_id: str) -> None:
    """Hand the frames of a producer to its publication; what is wrong with one ends the publication."""
    sequence = publication.opened.last_sequence
    try:
        while (data := await read()) is not grpc.aio.EOF:
            event = _event(frame_of(data))
            await publication.put([event])
            sequence = event.sequence
    except MeshError as error:
        error.metadata.setdefault("stream_id", stream_id)
        error.metadata.setdefault("sequence", str(sequence + 1))
        publication.fail(error)
    except Exception as error:  # noqa: BLE001 - the call ends with it, in the task that answers
        publication.fail(error)
    else:
        publication.finish()


def frame_of(data: bytes) -> pb.PublishRequest:
    """Return a frame of a producer that keeps the rules of its fields.

    Raises:
        InvalidRequest: it breaks some, or is none.
    """
    try:
        request = pb.PublishRequest.FromString(data)
    except DecodeError:
        raise InvalidRequest.of_field("frame", "must be a PublishRequest") from None
    if not is_plain(request, len(data)):
        checked(request)
    return request


def is_plain(request: pb.PublishRequest, size: int) -> bool:
    """Return whether a frame is a piece of text or of media and nothing else, and so small that it breaks no rule.

    Most frames are; asking protovalidate takes a tenth of all the time that an event costs. A start without payload is
    plain too.

    Args:
        request: The frame.
        size: Its bytes as it came: a message finds its own by spelling itself.
    """
    event = request.event
    if event.event_type == STREAM_EVENT_TYPE_STREAM_START and not event.HasField("payload"):
        return event.sequence > 0
    payload = event.payload
    chunk = payload.data
    kind = chunk.WhichOneof("payload")
    return (
        (
            (kind == "content" and len(chunk.content.text) <= _SURE_CHARACTERS)
            or (kind == "media" and size <= _SURE_BYTES and _is_bytes(chunk.media))
        )
        and event.event_type == STREAM_EVENT_TYPE_STREAM_DATA
        and event.sequence > 0
        and len(chunk.source) <= _SURE_SOURCE
        and not payload.HasField("metadata")
        and not payload.HasField("error")
    )


def _is_bytes(media: Media) -> bool:
    """Return whether media is some bytes, and nothing else is said of it that a rule is for."""
    return (
        media.encoding == MEDIA_ENCODING_BINARY
        and media.WhichOneof("data") == "binary"
        and media.media_type in _MEDIA_TYPES
        and not (media.caption or media.attachments)
        and not media.HasField("metadata")
        and not media.HasField("progress")
    )


def _event(request: pb.PublishRequest) -> pb.PublishEvent:
    if request.WhichOneof("frame") != "event":
        raise InvalidRequest.of_field("open", "must be the first frame and come once")
    return request.event


def _control(delivery: Delivery) -> bytes:
    match delivery:
        case StreamGap():
            return pb.SubscribeResponse(gap=delivery).SerializeToString()
        case StreamHeartbeat():
            return pb.SubscribeResponse(heartbeat=delivery).SerializeToString()
        case StreamGoAway():
            return pb.SubscribeResponse(go_away=delivery).SerializeToString()
    raise TypeError(delivery)
