"""A server under long and rude load: its memory stays what it was, and it answers as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from tests.benchmarks.inference.models import MLP, add_mlp, input_of, request
from tests.benchmarks.inference.servers import Server, serving
from tests.benchmarks.streaming.http2 import Call, Connection

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

SERVICE = "/inference.GRPCInferenceService/"
MB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    add_mlp(repository)
    with serving(repository) as server:
        yield server


@pytest.fixture
async def connection(server) -> AsyncIterator[Connection]:
    connection = await Connection.to(f"127.0.0.1:{server.port}")
    yield connection
    connection.close()


async def answered(server: Server) -> int:
    async with connect(f"127.0.0.1:{server.port}") as channel, InferenceClient(channel) as client:
        await client.infer_alone(MLP, {"input": input_of(MLP)})
    connection = await Connection.to(f"127.0.0.1:{server.port}")
    data = await connection.unary(SERVICE + "ModelStatistics", pb.ModelStatisticsRequest(name=MLP).SerializeToString())
    connection.close()
    return int(pb.ModelStatisticsResponse.FromString(data).model_stats[0].inference_stats.success.count)


async def unary_calls(connection: Connection, count: int, in_flight: int) -> None:
    body, left = request(MLP), count

    async def call() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await connection.unary(SERVICE + "ModelInfer", body)

    await asyncio.gather(*(call() for _ in range(in_flight)))


async def test_memory_is_flat_over_a_hundred_thousand_requests(server, connection) -> None:
    await unary_calls(connection, 10_000, 32)
    before = server.rss()
    await unary_calls(connection, 100_000, 32)
    assert server.rss() < before + 8 * MB


async def test_a_thousand_streams_at_once_are_all_answered(server, connection) -> None:
    async def rounds() -> None:
        done = asyncio.get_running_loop().create_future()
        waiting, bodies = set(range(1000)), [request(MLP, number) for number in range(5)]
        left = dict.fromkeys(range(1000), len(bodies))

        def take(stream: int, message: bytes) -> None:
            response = pb.ModelStreamInferResponse.FromString(message)
            assert not response.error_message, response.error_message
            left[stream] -= 1
            if not left[stream]:
                calls[stream].finish()

        def end(stream: int) -> None:
            waiting.discard(stream)
            if not waiting:
                done.set_result(None)

        calls = [
            connection.call(
                SERVICE + "ModelStreamInfer",
                lambda message, n=number: take(n, message),
                lambda n=number: end(n),
            )
            for number in range(1000)
        ]
        for call in calls:
            for body in bodies:
                call.send(body)
        async with asyncio.timeout(300):
            await done
        assert not any(left.values())

    await rounds()
    before = server.rss()
    for _ in range(3):
        await rounds()
    assert server.rss() < before + 16 * MB


async def at_rest(server: Server) -> None:
    """Wait until a server has worked off what it was sent."""
    spent = -1.0
    while (now := sum(server.process.cpu_times()[:2])) - spent > 0.05:
        spent = now
        await asyncio.sleep(0.5)


async def test_a_storm_of_cancelled_calls_leaves_nothing_behind(server, connection) -> None:
    body = request(MLP)

    async def storm() -> None:
        calls: list[Call] = []
        for _ in range(1500):
            call = connection.call(SERVICE + "ModelInfer", lambda _: None, lambda: None)
            call.send(body)
            call.finish()
            calls.append(call)
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await connection.unary(SERVICE + "ServerLive", b"")
        await at_rest(server)

    for _ in range(4):
        await storm()
    before = server.rss()
    for _ in range(12):
        await storm()
    # What gRPC keeps follows the largest storm, not their number: 14 KB a call would be 250 MB by now.
    assert server.rss() < before + 64 * MB
    count = await answered(server)
    await unary_calls(connection, 1000, 32)
    assert await answered(server) >= count + 1000
