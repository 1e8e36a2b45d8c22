"""Many streams at once: each with a producer, and readers over several edges; and somebody who watches them all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import grpc

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.client import Mesh
from mediamesh.client.edges.ndjson import NdjsonStreams
from mediamesh.client.edges.sse import SseStreams
from mediamesh.client.edges.websocket import WebSocketStreams
from mediamesh.wire.errors import MeshError
from tests.chaos.checker import faults
from tests.chaos.history import History
from tests.chaos.producers import produce
from tests.chaos.readers import Source, bare, bare_channel, read
from tests.chaos.waiting import until

__all__ = ["ALL", "GRPC", "Load", "loaded"]

GRPC = ("grpc", "bare")
"""The client's own way, and the same without its correction: a server that repeats itself is caught."""

ALL = (*GRPC, "sse", "ndjson", "websocket")
"""Every edge that streams can be read over."""

_WORKSPACE = "chaos"
_OPENERS = 16


class _Edge(Protocol):
    def subscribe(
        self, stream_id: str, *, after_sequence: int = 0, subscriber_id: str = ""
    ) -> AsyncGenerator[StreamEvent | StreamGap]: ...


class Load:
    """Streams that run while something is broken.

    Attributes:
        expected: How many deliveries there will be.
        delivered: How many there were.
        available: How often a watcher was told of each stream that it is there.
        complete: How often that it ended.
    """

    def __init__(
        self, history: History, mesh: Mesh, edges: Mapping[str, _Edge | grpc.aio.Channel], events: int, pause: float
    ) -> None:
        self._history = history
        self._mesh = mesh
        self._edges = edges
        self._events = events
        self._pause = pause
        self._progress = asyncio.Condition()
        self.expected = 0
        self.delivered = 0
        self.available: Counter[str] = Counter()
        self.complete: Counter[str] = Counter()

    async def until(self, share: float) -> None:
        """Wait until this share of all deliveries has been made."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.delivered >= share * self.expected)

    async def run(self, streams: int) -> None:
        """Open the streams and publish and read them to their ends."""
        turn = asyncio.Semaphore(_OPENERS)

        async def open_one() -> OpenStreamResponse:
            async with turn:
                return await self._mesh.streams.open(workspace_id=_WORKSPACE)

        async with asyncio.TaskGroup() as group:
            opening = [group.create_task(open_one()) for _ in range(streams)]
            for task in asyncio.as_completed(opening):
                self._begin(group, await task)

    def _begin(self, group: asyncio.TaskGroup, opened: OpenStreamResponse) -> None:
        group.create_task(self._produce(opened))
        for edge in self._edges:
            source = self._source(edge, opened.stream_id)
            group.create_task(
                read(self._history, opened.stream_id, source, client=f"reader {edge}", edge=edge, watch=self._count)
            )

    async def _produce(self, opened: OpenStreamResponse) -> None:
        await produce(self._history, self._mesh.streams, opened, events=self._events, pause=self._pause)
        # Its readers would wait for an end that never comes.
        failed = [one.note for one in self._history.of("failed") if one.client == "producer"]
        assert not failed, failed[0]

    def _source(self, edge: str, stream_id: str) -> Source:
        via = self._edges[edge]
        if isinstance(via, grpc.aio.Channel):
            return bare(via, stream_id, edge)
        return lambda after: via.subscribe(stream_id, after_sequence=after, subscriber_id=edge)

    async def _count(self, _item: StreamEvent | StreamGap) -> None:
        self.delivered += 1
        async with self._progress:
            self._progress.notify_all()

    async def watch(self) -> None:
        """Note which streams a watcher is told of, until cancelled."""
        try:
            async with aclosing(self._mesh.streams.watch(workspace_id=_WORKSPACE)) as frames:
                async for frame in frames:
                    if frame.HasField("stream_available"):
                        self.available[frame.stream_available.stream.stream_id] += 1
                    elif frame.HasField("stream_complete"):
                        stream_id = frame.stream_complete.stream.stream_id
                        assert self.available[stream_id], f"{stream_id} was complete before it was available"
                        self.complete[stream_id] += 1
        except MeshError as error:
            self._history.add("failed", "all", "watcher", note=f"{type(error).__name__}: {error.text}")

    async def check_watched(self, streams: int) -> None:
        """Wait until the watcher was told of all streams, and check that each ended once."""
        await until(lambda: len(self.complete) >= streams or bool(self._history.of("failed")))
        assert max(self.complete.values()) == 1, self.complete.most_common(3)


@asynccontextmanager
async def loaded(
    history: History,
    door: str,
    *,
    streams: int,
    events: int,
    pause: float,
    edges: Sequence[str] = GRPC,
    seconds: float = 120,
) -> AsyncGenerator[Load]:
    """Run streams beside a block, and wait for their ends after it.

    Args:
        history: Takes notes of all of it.
        door: Where the mesh is.
        streams: How many streams.
        events: How many chunks in each.
        pause: Seconds between two of a stream.
        edges: Over what each stream is read.
        seconds: How long all of it may take.

    Raises:
        AssertionError: it took longer; says what is wrong with the history until then.
    """
    async with Mesh(door) as mesh, AsyncExitStack() as stack:
        makers: dict[str, Callable[[], Any]] = {
            "grpc": lambda: mesh.streams,
            "bare": partial(bare_channel, door),
            "sse": partial(SseStreams, door),
            "ndjson": partial(NdjsonStreams, door),
            "websocket": partial(WebSocketStreams, door),
        }
        opened = {edge: makers[edge]() for edge in edges}
        for edge, via in opened.items():
            if edge != "grpc":
                await stack.enter_async_context(via)
        load = Load(history, mesh, opened, events, pause)
        load.expected = len(edges) * streams * (events + 2)
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                watching = group.create_task(load.watch())
                async with asyncio.TaskGroup() as work:
                    work.create_task(load.run(streams))
                    yield load
                await load.check_watched(streams)
                watching.cancel()
        except TimeoutError:
            raise AssertionError(f"not done after {seconds:g} s:\n" + "\n".join(faults(history)[:20])) from None
