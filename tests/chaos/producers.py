"""Producers whose every step goes into a history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import StreamMetadata, StreamPayload
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.client.streams import Publisher, StreamClient
from mediamesh.wire.errors import MeshError
from tests.chaos.history import History

__all__ = ["Producing", "produce"]


class Producing:
    """Publishes over a client's publisher, and notes it.

    Args:
        history: Takes the notes.
        publisher: From `StreamClient.publish`.
        client: Who it is in the history.
    """

    def __init__(self, history: History, publisher: Publisher, client: str) -> None:
        self._history = history
        self._publisher = publisher
        self._client = client
        self._noted = publisher.acknowledged

    async def start(self) -> None:
        """Begin the stream."""
        self._note("stream_start", StreamPayload())
        await self._publisher.start()
        self.acknowledged()

    async def send(self, text: str) -> None:
        """Send a piece of text."""
        payload = StreamPayload(data=Chunk(content=TextContent(text=text)))
        sequence = self._note("stream_data", payload)
        sent = await self._publisher.send(payload.data)
        assert sent == sequence, f"the client numbered {sent} what comes as {sequence}"
        self.acknowledged()

    async def end(self) -> None:
        """End the stream and wait until all of it is acknowledged."""
        self._note("stream_end", StreamPayload(metadata=StreamMetadata(reason="stop")))
        await self._publisher.end()
        self.acknowledged()

    def acknowledged(self) -> None:
        """Note how far the stream is known to be stored."""
        if (now := self._publisher.acknowledged) > self._noted:
            self._noted = now
            self._history.add("acknowledged", self._publisher.stream_id, self._client, sequence=now)

    def _note(self, event_type: str, payload: StreamPayload) -> int:
        sequence = self._publisher.last_sequence + 1
        self._history.published(self._publisher.stream_id, self._client, sequence, event_type, payload)
        return sequence


async def produce(
    history: History,
    streams: StreamClient,
    opened: OpenStreamResponse,
    *,
    events: int,
    pause: float = 0.0,
    size: int = 64,
    client: str = "producer",
    watch: Callable[[Publisher], None] = lambda _: None,
) -> None:
    """Publish a stream from its start to its end; an error goes into the history.

    Args:
        history: Takes the notes.
        streams: Client of the mesh.
        opened: The stream.
        events: How many chunks.
        pause: Seconds between them.
        size: Characters in each.
        client: Who it is in the history.
        watch: Gets the publisher when it is there.
    """
    try:
        async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
            watch(publisher)
            producing = Producing(history, publisher, client)
            await producing.start()
            for number in range(events):
                await producing.send(f"{opened.stream_id} {number} ".ljust(size, "."))
                await asyncio.sleep(pause)
            await producing.end()
    except MeshError as error:
        history.add("failed", opened.stream_id, client, note=f"{type(error).__name__}: {error.text}")
