"""``mediamesh stream``, as programs of their own, at a real door."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from dataclasses import dataclass

import pytest

from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_VIDEO
from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.chunk_pb2 import MEDIA_ENCODING_BINARY, Chunk, Media
from mediamesh.api.stream.v1.stream_pb2 import StreamLimits
from mediamesh.client import StreamClient, connect
from mediamesh.wire.errors import AgentFailed
from tests.conformance.making import make, read
from tests.conformance.serving import streams_door, streams_server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
EDGES = ("grpc", "sse", "ws", "ndjson")


@pytest.fixture(scope="module")
async def server(valkey_url):
    async with streams_server(valkey_url) as address:
        yield address


@pytest.fixture(scope="module")
async def door(server, tmp_path_factory):
    async with streams_door(server, tmp_path_factory.mktemp("door")) as address:
        yield address


@pytest.fixture(scope="module")
async def streams(server):
    async with connect(server) as channel:
        yield StreamClient(channel)


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def stream(door):
    async def run(*arguments: str, given: bytes = b"") -> Done:
        process = await started(door, *arguments)
        async with asyncio.timeout(120):
            out, err = await process.communicate(given)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run


async def started(door: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediamesh.cli.main", "stream", *arguments, "--server", door),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def test_what_goes_in_comes_out_on_every_edge(stream) -> None:
    text = "one\ntwo ü\n\nfour" + "x" * 100_000 + "\n"
    published = await stream("publish", given=text.encode())
    assert published.code == 0, published.err
    stream_id = published.out.strip()
    url, token, stored = published.err.splitlines()
    assert url.endswith(f"/api/v1/streams/{stream_id}/ws")
    assert token.startswith("token ")
    assert stored.startswith("Stored ")
    async with asyncio.TaskGroup() as group:
        tails = [group.create_task(stream("tail", stream_id, "--edge", edge)) for edge in EDGES]
    assert [tail.result() for tail in tails] == [Done(0, text, "")] * len(EDGES)


async def test_a_file_is_sent_in_pieces_and_a_second_try_goes_on_where_the_first_ended(
    stream, streams, tmp_path
) -> None:
    data = bytes(range(256)) * 1000
    file = tmp_path / "clip.mp4"
    file.write_bytes(data)
    opened = await streams.open()
    async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.start()
        await publisher.send(piece(data, 0))
    published = await stream(
        *("publish", "--file", str(file), "--stream", opened.stream_id, "--token", opened.publish_token)
    )
    assert published.code == 0, published.err
    assert published.out == ""
    media = [item.payload.data.media for item in (await read(streams, opened.stream_id))[1:-1]]
    assert b"".join(one.binary for one in media) == data
    assert [one.is_partial for one in media] == [True, True, True, False]
    assert media[-1].metadata.checksum == hashlib.sha256(data).hexdigest()
    assert media[-1].metadata.filename == "clip.mp4"
    tail = await stream("tail", opened.stream_id, "--after", "2")
    assert tail.out == ""
    assert "media 2/4 video/mp4 clip.mp4, 65536 bytes" in tail.err


def piece(data: bytes, index: int):
    return Chunk(
        media=Media(
            media_type=MEDIA_TYPE_VIDEO,
            encoding=MEDIA_ENCODING_BINARY,
            binary=data[index * 65536 : (index + 1) * 65536],
            is_partial=True,
            chunk_index=index,
            total_chunks=4,
        )
    )


async def publisher(door):
    """Start a producer of what it reads; return it, its input, and the stream that it opened."""
    producer = await started(door, "publish")
    assert producer.stdin is not None
    assert producer.stdout is not None
    return producer, producer.stdin, (await producer.stdout.readline()).decode().strip()


async def test_a_tail_follows_a_live_stream_and_prints_each_line_as_it_comes(door, streams) -> None:
    async with asyncio.timeout(120):
        producer, stdin, stream_id = await publisher(door)
        tail = await started(door, "tail", stream_id)
        assert tail.stdout is not None
        for word in (b"a\n", b"b\n"):
            stdin.write(word)
            await stdin.drain()
            assert await tail.stdout.readline() == word
        stdin.close()
        assert await producer.wait() == 0
        assert await tail.wait() == 0
        await asyncio.gather(producer.communicate(), tail.communicate())


async def test_ctrl_c_ends_a_producer_whose_input_stays_open(door, streams) -> None:
    async with asyncio.timeout(120):
        producer, stdin, stream_id = await publisher(door)
        stdin.write(b"a\n")
        await read(streams, stream_id, most=2)  # from here on it waits for the next line
        producer.send_signal(signal.SIGINT)
        assert await producer.wait() == 130
        assert producer.stderr is not None
        assert (await producer.stderr.read()).endswith(b"Cancelled.\n")
        stdin.close()


async def test_json_prints_event_objects_from_any_position(stream, streams) -> None:
    made = await make(streams, 3)
    tail = await stream("tail", made.stream_id, "--json", "--after", "1", "--edge", "ndjson")
    objects = [json.loads(line) for line in tail.out.splitlines()]
    assert [one["sequence"] for one in objects] == [2, 3, 4, 5]
    assert [one["event_type"] for one in objects] == ["stream_data"] * 3 + ["stream_end"]
    assert objects[0]["payload"]["data"]["content"] == {"text": "1"}
    assert (await stream("tail", made.stream_id, "--after", "5")).code == 0


@pytest.mark.parametrize("after", ["0", "2"])
async def test_a_stream_that_failed_is_an_error(stream, streams, after) -> None:
    made = await make(streams, 0, is_ended=False)
    async with streams.publish(made.stream_id, made.token) as publisher:
        await publisher.fail(AgentFailed("The agent fell over."))
    tail = await stream("tail", made.stream_id, "--after", after)
    assert tail.code == 1
    assert "The agent fell over." in tail.err


async def test_a_gap_and_an_unknown_stream_are_told_on_standard_error(stream, streams) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_items=16)
    made = await make(streams, 40, limits=limits)
    tail = await stream("tail", made.stream_id)
    assert (tail.code, tail.err) == (0, "Events 1 to 26 are lost.\n")
    unknown = await stream("tail", "no-such-stream")
    assert unknown.code == 1
    assert "no-such-stream" in unknown.err


async def test_list_shows_what_lives_and_how_the_rest_ended(stream, streams) -> None:
    live = await streams.open(workspace_id="cli-list", execution_id="x1", node_id="n", pin_name="out")
    ended = await streams.open(workspace_id="cli-list", mime_type="text/plain")
    await streams.close(ended.stream_id, reason="enough")
    everything = await stream("list", "--workspace", "cli-list")
    assert everything.code == 0, everything.err
    assert [line.split()[0] for line in everything.out.splitlines()] == ["stream", ended.stream_id, live.stream_id]
    assert "enough" in everything.out
    only = await stream("list", "--workspace", "cli-list", "--live", "--execution", "x1")
    assert [line.split()[:2] for line in only.out.splitlines()[1:]] == [[live.stream_id, "live"]]


async def test_watch_tells_what_comes_and_goes(door, streams) -> None:
    first = await streams.open(workspace_id="cli-watch")
    watching = await started(door, "list", "--watch", "--workspace", "cli-watch")
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(120):
            assert (await watching.stdout.readline()).split()[:2] == [b"available", first.stream_id.encode()]
            await streams.close(first.stream_id)
            assert (await watching.stdout.readline()).split()[:2] == [b"complete", first.stream_id.encode()]
    finally:
        watching.terminate()
        await watching.communicate()


async def test_a_stream_without_its_token_is_a_mistake(stream) -> None:
    done = await stream("publish", "--stream", "x")
    assert done.code == 2
    assert "go together" in done.err
