"""A reader's socket: the events of a stream from any position, through breaks of what is behind this server."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent
from mediamesh.api.stream.v1.stream_service_pb2 import SubscribeRequest
from mediamesh.client.streams import Frame, Place, resumed
from mediamesh.edge.race import race
from mediamesh.edge.socket import AGAINST_RULES, BadFrame
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.stream_json import frame_object

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
    from mediamesh.edge.query import Query
    from mediamesh.edge.socket import Socket
    from mediamesh.edge.spelled import Spelled

__all__ = ["Subscribing"]


class Subscribing:
    """Forwards a stream to a socket, one event at a time: a socket that reads slowly holds back what is behind.

    Attributes:
        position: Sequence up to which everything was sent, or told as lost.
    """

    def __init__(
        self, socket: Socket, query: Query, stub: StreamServiceStub, spelled: Spelled, *, patience: float
    ) -> None:
        self._socket = socket
        self._spelled = spelled
        self._query = query
        self._stub = stub
        self._patience = patience
        self.position = query.after

    async def run(self) -> None:
        """Forward until the stream's last event, or until the reader is gone.

        Raises:
            BadFrame: the reader said something.
            MeshError: the stream cannot be read.
        """
        await race(self._forward(), self._listen())

    async def _forward(self) -> None:
        query = self._query
        items = resumed(self._read, after_sequence=query.after, patience=self._patience, allow_gap=query.allow_gap)
        async with aclosing(items):
            async for item in items:
                if isinstance(item, StreamEvent):
                    await self._socket.send_frame(self._spelled.frame(item, is_text=query.is_text))
                    self.position = item.sequence
                else:
                    await self._socket.send(frame_object(query.stream_id, item))
                    self.position = item.last_sequence

    async def _read(self, place: Place) -> AsyncGenerator[Frame]:
        """Yield what one call says; heartbeats go to the socket at once, as `resumed` keeps them to itself."""
        call = self._stub.Subscribe(
            SubscribeRequest(
                stream_id=self._query.stream_id,
                after_sequence=place.after,
                allow_gap=place.is_resumed,
                subscriber_id=self._query.subscriber_id,
            )
        )
        try:
            async for response in call:
                match response.WhichOneof("frame"):
                    case "events":
                        yield response.events.events
                    case "gap":
                        yield response.gap
                    case "heartbeat":
                        await self._socket.send(frame_object(self._query.stream_id, response.heartbeat))
                        yield response.heartbeat
                    case "go_away":
                        yield response.go_away
        finally:
            call.cancel()

    async def _listen(self) -> None:
        if await self._socket.receive() is not None:
            error = InvalidRequest.of_field(
                "",
                "a reader's socket takes no frames; add publish=1 and the token to its address to publish",
                stream_id=self._query.stream_id,
                sequence=self.position,
            )
            raise BadFrame(error, AGAINST_RULES)
