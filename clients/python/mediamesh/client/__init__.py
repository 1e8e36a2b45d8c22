"""An asyncio client for the mesh; the servers call each other through it too.

``async with Mesh("127.0.0.1:8080") as mesh`` opens one channel to the door and offers a client for each service.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.client.media import MediaClient
from mediamesh.client.streams import Publisher, StreamClient

__all__ = ["FlowClient", "MediaClient", "Mesh", "Publisher", "StreamClient", "connect"]


# A network that is cut, without a word from it, is noticed within twice as much.
_KEEPALIVE_SECONDS = 5.0


class Mesh:
    """The mesh behind one door.

    Attributes:
        flows: Checks flows, runs them and follows their events.
        media: Stores media and reads it.
        streams: Opens streams, publishes to them and reads them.
    """

    def __init__(self, target: str = "127.0.0.1:8080") -> None:
        self._channel = connect(target, keepalive_seconds=_KEEPALIVE_SECONDS)
        self.flows = FlowClient(self._channel)
        self.media = MediaClient(self._channel)
        self.streams = StreamClient(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()
