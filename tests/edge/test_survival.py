"""Sockets when things go away: streams servers, this server, readers that stop."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import InvalidStatus

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.client.channel import connect
from mediamesh.client.streams import Publisher, StreamClient
from mediamesh.edge.metrics import COUNTS
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.streams.capabilities import capabilities_of
from mediamesh.streams.log.memory import Memory
from mediamesh.streams.service import SERVICE, StreamServicer, register
from mediamesh.streams.settings import Settings as StreamSettings
from tests.edge.conftest import Edge, edge_server, next_of, objects
from tests.streams.producing import broker_over


@asynccontextmanager
async def streams_over(memory, port=0):
    """Run a streams server that dies without a word, over streams that outlive it."""
    async with broker_over(memory) as broker:
        servicer = StreamServicer(broker, capabilities_of(StreamSettings(valkey_url="")))
        part = Part(services=[SERVICE], register=lambda server: register(servicer, server))
        async with serving(ServerSettings(grace_seconds=0, port=port), part) as taken:
            yield taken


def text(number):
    return Chunk(content=TextContent(text=f"text {number}"))


async def test_a_reader_does_not_see_that_the_streams_server_dies_and_comes_back() -> None:
    memory = Memory()
    async with asyncio.timeout(60):
        async with streams_over(memory) as port:
            streams_channel = connect(f"127.0.0.1:{port}")
            streams = StreamClient(streams_channel)
            opened = await streams.open()
        async with streams_channel, edge_server(port) as edge:
            async with streams_over(memory, port):
                socket = await edge.open(opened.stream_id)
                async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
                    await publisher.start()
                    await publisher.send(text(2))
                assert [(await next_of(socket))["sequence"] for _ in range(2)] == [1, 2]
            async with streams_over(memory, port):
                async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
                    await publisher.send(text(3))
                    await publisher.end()
                assert [frame["sequence"] async for frame in objects(socket)] == [3, 4]
    assert socket.close_code == 1000


async def test_a_producer_hears_that_the_streams_server_died_and_may_come_back() -> None:
    memory = Memory()
    async with asyncio.timeout(60):
        async with streams_over(memory) as port:
            async with connect(f"127.0.0.1:{port}") as channel:
                opened = await StreamClient(channel).open()
            edge_running = edge_server(port)
            edge = await edge_running.__aenter__()
            socket = await edge.publish(opened, producer_id="p")
            assert (await next_of(socket))["event_type"] == "opened"
        (last,) = [frame async for frame in objects(socket)]
        assert last["event_type"] == "error"
        assert socket.close_code == 1013
        async with streams_over(memory, port), edge.publish(opened, producer_id="p") as again:
            assert (await next_of(again))["event_type"] == "opened"
        await edge_running.__aexit__(None, None, None)


async def test_a_server_that_goes_away_says_where_to_go_on(streams, streams_port) -> None:
    opened = await streams.open()
    async with asyncio.timeout(30):
        async with edge_server(streams_port) as edge:
            reader = await edge.open(opened.stream_id)
            producer = await edge.publish(opened)
            await next_of(producer)
            await producer.send('{"event_type":"stream_start","sequence":1}')
            assert (await next_of(producer))["sequence"] == 1
            assert (await next_of(reader))["sequence"] == 1
        for socket in (reader, producer):
            (last,) = [frame async for frame in objects(socket)]
            assert (last["event_type"], last["resume_token"]) == ("go_away", "1")
            assert socket.close_code == 1012


async def test_a_streams_server_that_goes_away_sends_producers_elsewhere() -> None:
    async with asyncio.timeout(30), broker_over() as broker:
        servicer = StreamServicer(broker, capabilities_of(StreamSettings(valkey_url="")))
        part = Part(services=[SERVICE], register=lambda server: register(servicer, server))
        async with serving(ServerSettings(grace_seconds=0), part) as port, edge_server(port) as edge:
            async with connect(f"127.0.0.1:{port}") as channel:
                opened = await StreamClient(channel).open()
            producer = await edge.publish(opened)
            await next_of(producer)
            broker.leave()
            *_, last = [frame async for frame in objects(producer)]
            assert last["event_type"] == "go_away"
            assert producer.close_code == 1012


@pytest.mark.stack
async def test_a_reader_that_stops_holds_back_the_producer_and_loses_nothing(streams, streams_port) -> None:
    piece, count = "x" * 65_000, 400
    limits = stream_pb2.StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_BLOCK, max_bytes=4 << 20, max_items=1000)
    opened = await streams.open(limits=limits)
    before = COUNTS.bytes_out

    async def produce():
        async with streams.publish(opened.stream_id, opened.publish_token, max_unacknowledged_bytes=1 << 20) as made:
            held.append(made)
            for _ in range(count):
                await made.send(Chunk(content=TextContent(text=piece)))
            await made.end()

    held: list[Publisher] = []
    async with (
        asyncio.timeout(90),
        edge_server(streams_port) as edge,
        asyncio.TaskGroup() as tasks,
        edge.open(opened.stream_id) as socket,
    ):
        tasks.create_task(produce())
        while not (held and held[0].is_blocked):  # noqa: ASYNC110 - it says so to nobody
            await asyncio.sleep(0.05)
        # What the kernel and two libraries hold for a reader, and not what there is.
        assert COUNTS.bytes_out - before < 16 * 1024 * 1024
        got = [frame["sequence"] async for frame in objects(socket)]
    assert got == list(range(1, count + 2))


async def test_no_more_sockets_are_opened_than_may_be(streams, streams_port) -> None:
    opened = await streams.open()
    async with (
        edge_server(streams_port, max_sockets=2) as edge,
        edge.open(opened.stream_id),
        edge.open(opened.stream_id),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with edge.open(opened.stream_id):
                pass
        assert caught.value.response.status_code == 503


async def test_the_trace_of_the_upgrade_goes_on_in_the_streams_server() -> None:
    heard: list[str] = []

    class Spy(StreamServicer):
        async def Subscribe(self, request, context):
            heard.extend(str(value) for key, value in context.invocation_metadata() or () if key == "traceparent")
            async for frame in super().Subscribe(request, context):
                yield frame

    async with broker_over() as broker:
        servicer = Spy(broker, capabilities_of(StreamSettings(valkey_url="")))
        part = Part(services=[SERVICE], register=lambda server: register(servicer, server))
        async with serving(ServerSettings(grace_seconds=0), part) as port, edge_server(port) as edge:
            trace = "0af7651916cd43dd8448eb211c80319c"
            async with edge.open("nowhere", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}) as socket:
                assert [frame["event_type"] async for frame in objects(socket)] == ["error"]
    assert [re.split("-", parent)[1] for parent in heard] == [trace]


@pytest.mark.stack
async def test_sigterm_closes_every_socket_in_order_and_ends_well(streams, streams_port) -> None:
    opened = await streams.open()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mediamesh.edge",
        env={
            "MEDIAMESH_EDGE_PORT": "0",
            "MEDIAMESH_EDGE_STREAMS_ADDRESS": f"127.0.0.1:{streams_port}",
            "PATH": "/usr/bin",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        log = ""
        while not (listening := re.search(r"edge on 127\.0\.0\.1:(\d+)", log)):
            log += (await process.stderr.readline()).decode()
        edge = Edge(int(listening[1]))
        sockets = [await edge.open(opened.stream_id) for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        for socket in sockets:
            assert [frame["event_type"] async for frame in objects(socket)] == ["go_away"]
            assert socket.close_code == 1012
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 0
    assert "Traceback" not in log + rest


@pytest.mark.stack
async def test_a_thousand_sockets_read_over_one_channel(streams, streams_port) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    limits = stream_pb2.StreamLimits()
    limits.heartbeat_interval.FromSeconds(600)  # the first ones hear nothing until the last one is there
    opened = await streams.open(limits=limits)
    async with asyncio.timeout(100), edge_server(streams_port, grace_seconds=30) as edge:
        gate = asyncio.Semaphore(20)
        connected = asyncio.Barrier(1001)

        async def read():
            async with gate:
                socket = await edge.open(opened.stream_id)
            await connected.wait()
            async with socket:
                return [frame["sequence"] async for frame in objects(socket)]

        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read()) for _ in range(1000)]
            await connected.wait()
            async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
                await publisher.start()
                for number in range(2, 11):
                    await publisher.send(text(number))
                await publisher.end()
    assert all(reader.result() == list(range(1, 12)) for reader in readers)


async def test_a_socket_that_answers_no_ping_is_given_up(streams, streams_port) -> None:
    opened = await streams.open()
    async with asyncio.timeout(30), edge_server(streams_port, ping_seconds=0.1, pong_seconds=0.2) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(
            f"GET /api/v1/streams/{opened.stream_id}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readline()
        await reader.read()
        writer.close()
        await writer.wait_closed()
