"""A producer's socket: events in, and acknowledgements, windows and notices out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import PublishRequest
from mediamesh.edge.inbox import Inbox
from mediamesh.edge.socket import AGAINST_RULES, BadFrame
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.stream_json import publish_event_from_object, publish_frame_object

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.api.stream.v1.stream_service_pb2 import PublishOpen
    from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
    from mediamesh.edge.socket import Socket

__all__ = ["Publishing"]


class Publishing:
    """Forwards the events of a socket in order: a stream that takes no more holds back the socket.

    A server behind that dies or goes away ends it; the producer comes back and sends what was not acknowledged.

    Attributes:
        position: Sequence of the last event that was acknowledged.
        has_gone_away: Whether the producer was told to go on elsewhere.
    """

    def __init__(self, socket: Socket, opening: PublishOpen, stub: StreamServiceStub) -> None:
        self._socket = socket
        self._opening = opening
        self._stub = stub
        self._inbox = Inbox()
        self._bad: BadFrame | None = None
        self.position = 0
        self.has_gone_away = False

    async def run(self) -> None:
        """Forward until the producer is gone and all that it sent is dealt with, or until a server ends it.

        Raises:
            BadFrame: a frame was wrong; what came before it is acknowledged.
            MeshError: the stream takes no more.
            Exception: what reading the socket failed with; likewise.
        """
        listening = asyncio.create_task(self._listen())
        call = self._stub.Publish(self._requests())
        try:
            async for response in call:
                if response.HasField("opened"):
                    self.position = response.opened.last_sequence
                elif response.HasField("ack"):
                    self.position = response.ack.sequence
                await self._socket.send(publish_frame_object(self._opening.stream_id, response))
                if response.HasField("go_away"):
                    self.has_gone_away = True
                    return
        finally:
            call.cancel()
            listening.cancel()
            await asyncio.wait([listening])
            # gRPC leaves the requests of a call that has ended waiting for ever.
            self._inbox.abandon()
        if self._bad is not None:
            raise self._bad
        if not listening.cancelled():
            listening.result()

    async def _listen(self) -> None:
        try:
            while (received := await self._socket.receive()) is not None:
                await self._inbox.put(publish_event_from_object(received[0], data=received[1]))
        except BadFrame as bad:
            self._bad = bad
        except InvalidRequest as error:
            self._bad = BadFrame(error, AGAINST_RULES)
        finally:
            # However it ends: nobody else ends the call.
            self._inbox.close()

    async def _requests(self) -> AsyncGenerator[PublishRequest]:
        yield PublishRequest(open=self._opening)
        while (event := await self._inbox.get()) is not None:
            yield PublishRequest(event=event)
