"""A client of the streams of a mesh."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2

from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client.streams.patience import Patience, passes
from mediamesh.client.streams.publisher import (
    MAX_UNACKNOWLEDGED,
    MAX_UNACKNOWLEDGED_BYTES,
    Publisher,
    publishing,
)
from mediamesh.client.streams.reading import Frame, Place, resumed
from mediamesh.wire.errors import MeshError, StreamInterrupted

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEvent, StreamGap, StreamLimits

__all__ = ["StreamClient"]

_PUBLISH = "/mediamesh.api.stream.v1.StreamService/Publish"
_HEARTBEAT_SECONDS = 5.0
# Heartbeats that may fail to come before a connection counts as broken.
_MISSED_HEARTBEATS = 2.5


class StreamClient:
    """The streams of a mesh.

    Args:
        channel: From `mediamesh.client.connect`.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = StreamServiceStub(channel)
        # Events are serialised once, when they are numbered; a second try sends the same bytes.
        self._publish: Any = channel.stream_stream(_PUBLISH, response_deserializer=pb.PublishResponse.FromString)

    async def open(
        self,
        *,
        workspace_id: str = "",
        execution_id: str = "",
        node_id: str = "",
        pin_name: str = "",
        mime_type: str = "",
        limits: StreamLimits | None = None,
    ) -> pb.OpenStreamResponse:
        """Open a stream; the answer has its id, its address over WebSocket and the token to publish to it.

        Raises:
            InvalidRequest: a field or a limit is not accepted.
            Overloaded: as many streams live as may.
        """
        return await self._stub.OpenStream(
            pb.OpenStreamRequest(
                workspace_id=workspace_id,
                execution_id=execution_id,
                node_id=node_id,
                pin_name=pin_name,
                mime_type=mime_type,
                limits=limits,
            )
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
        """Publish to a stream for as long as the block lasts.

        A connection that breaks off, or a server that goes away, is not seen: what was not acknowledged is sent again,
        in order, by the same producer. Leaving the block waits until all is stored; leaving it by an exception does
        not. Neither ends the stream: `Publisher.end` and `Publisher.fail` do.

        Args:
            stream_id: The stream.
            publish_token: What `open` gave.
            producer_id: The producer's own id; a new one when empty.
            epoch: Which producer of the stream this is; 0 takes over from the one before.
            max_unacknowledged: Most events that are sent and not acknowledged; then `Publisher.send` waits.
            max_unacknowledged_bytes: Most bytes, likewise.
            patience: How many seconds without a word from any server to bear.

        Raises:
            NotFound: there is no such stream.
            PermissionDenied: the token is not that of the stream.
            FailedPrecondition: a producer with a higher epoch has taken over, or the stream has ended.
            Unavailable: no server answered within the patience.
        """
        return publishing(
            self._call,
            lambda: self.get(stream_id),
            opening=pb.PublishOpen(
                stream_id=stream_id, publish_token=publish_token, producer_id=producer_id, epoch=epoch
            ),
            max_unacknowledged=max_unacknowledged,
            max_unacknowledged_bytes=max_unacknowledged_bytes,
            patience=patience,
        )

    def subscribe(
        self,
        stream_id: str,
        *,
        after_sequence: int = 0,
        subscriber_id: str = "",
        allow_gap: bool = False,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
        patience: float = 60.0,
    ) -> AsyncGenerator[StreamEvent | StreamGap]:
        """Yield the events of a stream, each once and in order, until its last one; what is lost comes as a gap.

        A connection that breaks off, or falls silent, or a server that goes away, is not seen: reading goes on where it
        was, after a pause that doubles from 0.1 s to 5 s, with jitter.

        Args:
            stream_id: The stream.
            after_sequence: Sequence of the last event that the reader has; 0 for all that there are.
            subscriber_id: The reader's own id, so that its place is kept while it is away; a new one when empty.
            allow_gap: Whether to begin with a gap when the event after ``after_sequence`` is no longer kept.
            heartbeat_seconds: How often the server tells that it is there; 2.5 times as much is a broken connection.
            patience: How many seconds without a word from any server to bear.

        Raises:
            NotFound: there is no such stream, or no more.
            OutOfRange: the stream has not come to ``after_sequence`` yet, or what follows is no longer kept.
            Overloaded: the reader lagged, and the stream's policy is to disconnect such.
            Unavailable: no server answered within the patience.
            StreamInterrupted: no connection held within the patience.
        """
        heartbeat = duration_pb2.Duration()
        heartbeat.FromNanoseconds(round(heartbeat_seconds * 1e9))
        request = pb.SubscribeRequest(
            stream_id=stream_id, subscriber_id=subscriber_id or uuid.uuid4().hex, heartbeat_interval=heartbeat
        )

        def read(place: Place) -> AsyncGenerator[Frame]:
            request.after_sequence, request.allow_gap = place.after, place.is_resumed
            return self._read(request, _MISSED_HEARTBEATS * heartbeat_seconds)

        return resumed(read, after_sequence=after_sequence, patience=patience, allow_gap=allow_gap)

    async def watch(
        self, *, workspace_id: str = "", execution_id: str = "", resume_token: str = "", patience: float = 60.0
    ) -> AsyncGenerator[pb.WatchStreamsResponse]:
        """Yield which streams become available and complete, those that live first; breaks are not seen.

        Args:
            workspace_id: Whose streams; `default` when empty.
            execution_id: Only those of this execution.
            resume_token: That of the last frame that the watcher has.
            patience: How many seconds without a word from any server to bear.

        Raises:
            OutOfRange: what came after the token is no longer kept.
            Unavailable: no server answered within the patience.
        """
        bearing = Patience(patience)
        request = pb.WatchStreamsRequest(
            workspace_id=workspace_id, execution_id=execution_id, resume_token=resume_token
        )
        while True:
            failure: MeshError = StreamInterrupted("The server ended the watch.")
            alive = went = False
            call = self._stub.WatchStreams(request)
            try:
                async for frame in call:
                    request.resume_token = frame.resume_token or request.resume_token
                    if went := frame.HasField("go_away"):
                        break
                    alive = True
                    if not frame.HasField("heartbeat"):
                        yield frame
            except MeshError as error:
                if not passes(error):
                    raise
                failure = error
            finally:
                call.cancel()
            if alive:
                bearing.heard()
            if not (alive and went):
                await bearing.bear(failure)

    async def get(self, stream_id: str) -> Stream:
        """Return a stream as it stands.

        Raises:
            NotFound: there is none, or no more.
        """
        return (await self._stub.GetStream(pb.GetStreamRequest(stream_id=stream_id))).stream

    async def list(
        self,
        *,
        workspace_id: str = "",
        execution_id: str = "",
        live_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
    ) -> pb.ListStreamsResponse:
        """Return a page of a workspace's streams, newest first."""
        return await self._stub.ListStreams(
            pb.ListStreamsRequest(
                workspace_id=workspace_id,
                execution_id=execution_id,
                live_only=live_only,
                page_size=page_size,
                page_token=page_token,
            )
        )

    async def close(self, stream_id: str, *, reason: str = "", error: status_pb2.Status | None = None) -> Stream:
        """End a stream in place of its producer and return it; one that has ended stays as it is.

        Raises:
            NotFound: there is none, or no more.
        """
        request = pb.CloseStreamRequest(stream_id=stream_id, reason=reason, error=error)
        return (await self._stub.CloseStream(request)).stream

    async def capabilities(self) -> pb.GetCapabilitiesResponse:
        """Tell what streams of this mesh can carry, and on which transports they can be read."""
        return await self._stub.GetCapabilities(pb.GetCapabilitiesRequest())

    async def _call(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[pb.PublishResponse]:
        call = self._publish(requests)
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def _read(self, request: pb.SubscribeRequest, silence: float) -> AsyncGenerator[Frame]:
        """Yield what one call says."""
        call = self._stub.Subscribe(request)
        responses = aiter(call)
        try:
            while True:
                deadline = asyncio.timeout(silence)
                try:
                    async with deadline:
                        response = await anext(responses)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if not deadline.expired():
                        raise
                    raise StreamInterrupted(f"The server said nothing for {silence:g} s.") from None
                match response.WhichOneof("frame"):
                    case "events":
                        yield response.events.events
                    case "gap":
                        yield response.gap
                    case "heartbeat":
                        yield response.heartbeat
                    case "go_away":
                        yield response.go_away
        finally:
            call.cancel()
