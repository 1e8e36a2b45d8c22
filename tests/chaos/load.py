"""Many streams at once: each with a producer, a reader by the client and a bare one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.client import Mesh
from tests.chaos.history import History
from tests.chaos.producers import produce
from tests.chaos.readers import bare, bare_channel, read

__all__ = ["Load", "loaded"]

_OPENERS = 16


class Load:
    """Streams that run while something is broken.

    Attributes:
        expected: How many deliveries there will be.
        delivered: How many there were.
    """

    def __init__(
        self, history: History, mesh: Mesh, bare_door: str, *, streams: int, events: int, pause: float
    ) -> None:
        self._history = history
        self._mesh = mesh
        self._bare = bare_channel(bare_door)
        self._events = events
        self._pause = pause
        self._progress = asyncio.Condition()
        self._streams = streams
        self.expected = 2 * streams * (events + 2)
        self.delivered = 0

    async def until(self, share: float) -> None:
        """Wait until this share of all deliveries has been made."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.delivered >= share * self.expected)

    async def run(self) -> None:
        """Open the streams and publish and read them to their ends."""
        turn = asyncio.Semaphore(_OPENERS)

        async def open_one() -> OpenStreamResponse:
            async with turn:
                return await self._mesh.streams.open(workspace_id="chaos")

        async with self._bare, asyncio.TaskGroup() as group:
            opening = [group.create_task(open_one()) for _ in range(self._streams)]
            for task in asyncio.as_completed(opening):
                self._begin(group, await task)

    def _begin(self, group: asyncio.TaskGroup, opened: OpenStreamResponse) -> None:
        stream_id = opened.stream_id
        group.create_task(produce(self._history, self._mesh.streams, opened, events=self._events, pause=self._pause))
        group.create_task(
            read(
                self._history,
                stream_id,
                lambda after: self._mesh.streams.subscribe(stream_id, after_sequence=after, subscriber_id="reader"),
                client="reader",
                watch=self._count,
            )
        )
        group.create_task(
            read(
                self._history,
                stream_id,
                bare(self._bare, stream_id, "bare"),
                client="bare reader",
                watch=self._count,
            )
        )

    async def _count(self, _item: StreamEvent | StreamGap) -> None:
        self.delivered += 1
        async with self._progress:
            self._progress.notify_all()


@asynccontextmanager
async def loaded(
    history: History, door: str, *, streams: int, events: int, pause: float, bare_door: str = ""
) -> AsyncGenerator[Load]:
    """Run streams beside a block, and wait for their ends after it.

    Args:
        history: Takes notes of all of it.
        door: Where the mesh is.
        streams: How many streams.
        events: How many chunks in each.
        pause: Seconds between two of a stream.
        bare_door: Where bare readers find the mesh; the same door when empty.
    """
    async with Mesh(door) as mesh, asyncio.TaskGroup() as group:
        load = Load(history, mesh, bare_door or door, streams=streams, events=events, pause=pause)
        group.create_task(load.run())
        yield load
