"""One cursor for all edges: a stream is read over gRPC, then SSE, then NDJSON, then WebSocket, through a ``kill -9``.

``python clients/examples/streams/one_cursor.py`` starts a mesh of its own, kills its streams server while the stream is
read over SSE, and prints what was read; it exits with 1 when anything was lost or came twice. With ``--door HOST:PORT``
it reads from a mesh that runs, and kills nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import psutil

from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.cli.demo import MeshProcess, mesh_up
from mediamesh.client import Mesh
from mediamesh.client.edges.ndjson import NdjsonStreams
from mediamesh.client.edges.sse import SseStreams
from mediamesh.client.edges.websocket import WebSocketStreams
from mediamesh.client.streams import StreamClient

WORDS = 60
PAUSE_SECONDS = 0.05
# Over which edge to read up to which event, with the cursor that the one before has left; the last reads to the end.
EDGES = {"grpc": 12, "sse": 32, "ndjson": 46, "websocket": WORDS + 2}
KILLED_AT = 20

Streams = StreamClient | SseStreams | NdjsonStreams | WebSocketStreams
Read = Callable[[str, int], AsyncGenerator[StreamEvent | StreamGap]]


async def publish(mesh: Mesh, opened: OpenStreamResponse) -> None:
    """Publish a word every 50 ms; the client sends again what a server that died had not acknowledged."""
    async with mesh.streams.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.start()
        for number in range(WORDS):
            await publisher.send(Chunk(content=TextContent(text=f"word {number + 1}")))
            await asyncio.sleep(PAUSE_SECONDS)
        await publisher.end()


async def follow(stream_id: str, edges: dict[str, Read], kill: Callable[[], str]) -> list[int]:
    """Read the stream over one edge after the other, each from where the last one stopped."""
    seen: list[int] = []
    cursor = 0
    for edge, last in EDGES.items():
        async with aclosing(edges[edge](stream_id, cursor)) as items:
            async for item in items:
                if isinstance(item, StreamGap):
                    print(f"{edge:>9}  lost {item.first_sequence} to {item.last_sequence}")
                    cursor = item.last_sequence
                    continue
                seen.append(item.sequence)
                cursor = item.sequence
                print(f"{edge:>9}  {item.sequence:3}  {text_of(item)}")
                if cursor == KILLED_AT and (killed := kill()):
                    print(f"{'':>9}  {killed}")
                if cursor >= last:
                    break
    return seen


def text_of(event: StreamEvent) -> str:
    """Return what an event says."""
    return event.payload.data.content.text or event.payload.metadata.reason or "the stream begins"


@asynccontextmanager
async def readers(mesh: Mesh, door: str) -> AsyncGenerator[dict[str, Read]]:
    """Yield how to read over each edge; all take the same cursor."""
    async with SseStreams(door) as sse, NdjsonStreams(door) as ndjson, WebSocketStreams(door) as websocket:
        clients: dict[str, Streams] = {"grpc": mesh.streams, "sse": sse, "ndjson": ndjson, "websocket": websocket}
        yield {edge: partial(_read, client) for edge, client in clients.items()}


def _read(client: Streams, stream_id: str, cursor: int) -> AsyncGenerator[StreamEvent | StreamGap]:
    return client.subscribe(stream_id, after_sequence=cursor, subscriber_id="one-cursor")


async def run(door: str, kill: Callable[[], str]) -> int:
    """Publish a stream, read it over all edges, and return the exit status."""
    async with Mesh(door) as mesh, readers(mesh, door) as edges, asyncio.TaskGroup() as group:
        opened = await mesh.streams.open()
        group.create_task(publish(mesh, opened))
        seen = await follow(opened.stream_id, edges, kill)
    expected = list(range(1, WORDS + 3))
    if seen != expected:
        missing, twice = sorted({*expected} - {*seen}), sorted({one for one in seen if seen.count(one) > 1})
        print(f"missing: {missing}, twice: {twice}")
        return 1
    print(f"{len(seen)} events over {len(EDGES)} edges with one cursor: no gap, no duplicate.")
    return 0


def kill_streams_server(mesh: MeshProcess) -> str:
    """Kill the streams server of a mesh, and say so; the mesh starts another."""
    for process in psutil.Process(mesh.pid).children(recursive=True):
        if "mediamesh.streams" in process.cmdline():
            process.kill()
            return f"kill -9 {process.pid}  (the streams server)"
    raise RuntimeError("the mesh has no streams server")


@contextmanager
def a_mesh(door: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield a door and what kills the streams server behind it."""
    if door:
        yield door, lambda: ""
        return
    with tempfile.TemporaryDirectory(prefix="mediamesh-") as folder, mesh_up(Path(folder)) as mesh:
        yield mesh.door, lambda: kill_streams_server(mesh)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", default="", help="host:port of a mesh that runs")
    with a_mesh(parser.parse_args().door) as (door, kill):
        sys.exit(asyncio.run(run(door, kill)))
