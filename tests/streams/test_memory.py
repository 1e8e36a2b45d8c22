"""Memory after many short streams: back to where it was, in the server and in Valkey."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import psutil
import pytest
import redis.asyncio as redis

from mediamesh.api.stream.v1.stream_service_pb2 import (
    OpenStreamRequest,
    PublishOpen,
    PublishRequest,
    SubscribeRequest,
)
from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client.channel import connect
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving
from mediamesh.stack.process import running
from mediamesh.stack.programs import Program, valkey
from tests.streams.producing import data, end, start

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

STREAMS = 10_000
AT_ONCE = 50
_MEGABYTE = 1 << 20


async def one_stream(stub):
    opened = await stub.OpenStream(OpenStreamRequest())

    async def frames():
        yield PublishRequest(open=PublishOpen(stream_id=opened.stream_id, publish_token=opened.publish_token))
        for event in (start(), data(2, "x" * 200), end(3)):
            yield PublishRequest(event=event)

    async def read():
        call = stub.Subscribe(SubscribeRequest(stream_id=opened.stream_id))
        return [event.sequence async for response in call for event in response.events.events]

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        async for _ in stub.Publish(frames()):
            pass
    assert reading.result() == [1, 2, 3]


async def many_streams(stub, count):
    async def some():
        for _ in range(count // AT_ONCE):
            await one_stream(stub)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(some())


async def test_ten_thousand_short_streams_leave_nothing_behind(tmp_path) -> None:
    store_port, port = free_ports(2)
    server = Program(
        name="streams",
        argv=[sys.executable, "-m", "mediamesh.streams"],
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
        env={
            "MEDIAMESH_STREAMS_PORT": str(port),
            "MEDIAMESH_STREAMS_VALKEY_URL": f"redis://127.0.0.1:{store_port}/0",
            "MEDIAMESH_STREAMS_BUFFER_TTL_SECONDS": "10",
            "MEDIAMESH_STREAMS_META_TTL_SECONDS": "10",
        },
    )
    store = redis.Redis(port=store_port)

    async def used(process):
        """Return the bytes that the server and Valkey use when all streams have expired."""
        async with asyncio.timeout(60):
            while await store.keys("stream:*"):  # noqa: ASYNC110 - keys expire without telling anybody
                await asyncio.sleep(0.2)
        return psutil.Process(process.pid).memory_info().rss, (await store.info("memory"))["used_memory"]

    async with (
        running(valkey(port=store_port, data=tmp_path), tmp_path / "valkey.log"),
        running(server, tmp_path / "streams.log") as process,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = StreamServiceStub(channel)
        # The first streams fill what is filled once: pools, caches, the news that are kept.
        await many_streams(stub, STREAMS // 4)
        server_before, store_before = await used(process)
        await many_streams(stub, STREAMS)
        server_after, store_after = await used(process)
        await store.aclose()
    assert server_after - server_before < 4 * _MEGABYTE
    assert store_after - store_before < 2 * _MEGABYTE
