from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Size, type and flags of HTTP/2's SETTINGS, of its acknowledgement, and of PING.
FRAMES = ((0, 4, 0), (0, 4, 1), (8, 6, 0))


def _watch(channel: grpc.aio.Channel) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types know no Watch
    return stub.Watch(health_pb2.HealthCheckRequest(service="test.Service"))


class Dependency:
    def __init__(self) -> None:
        self.there = True
        self.drained = asyncio.Event()

    async def check(self) -> None:
        if not self.there:
            raise ConnectionError("the store is gone")

    async def drain(self) -> None:
        self.drained.set()


@pytest.mark.stack
async def test_health_follows_what_a_part_depends_on() -> None:
    dependency = Dependency()
    part = Part(services=["test.Service"], register=lambda server: None, check=dependency.check)
    async with serving(ServerSettings(), part) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = _watch(channel)
        states = aiter(watch)
        async with asyncio.timeout(10):
            while (await anext(states)).status != SERVING:
                pass
            dependency.there = False
            assert (await anext(states)).status == NOT_SERVING
            dependency.there = True
            assert (await anext(states)).status == SERVING
        watch.cancel()


async def test_a_server_is_not_well_before_what_it_depends_on_has_answered() -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        asked.set()
        await answered.wait()

    part = Part(services=["test.Service"], register=lambda server: None, check=check)
    async with (
        asyncio.timeout(10),
        serving(ServerSettings(), part) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        await asked.wait()
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        states = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(states)).status == NOT_SERVING
        answered.set()
        assert (await anext(states)).status == SERVING


async def test_a_server_that_stops_says_so_before_it_drains() -> None:
    dependency = Dependency()
    part = Part(services=["test.Service"], register=lambda server: None, drain=dependency.drain)
    states = []
    async with asyncio.timeout(10), grpc_watch(part) as (watch, stop):
        async for answer in watch:
            states.append(answer.status)
            if answer.status == SERVING:
                stop.set()
            if answer.status == NOT_SERVING and SERVING in states:
                break
    assert dependency.drained.is_set()


class grpc_watch:  # noqa: N801 - reads as the function that it is
    """A server that runs until ``stop`` is set, and a health watch on it."""

    def __init__(self, part: Part) -> None:
        self._part = part

    async def __aenter__(self):
        started = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()

        async def run() -> None:
            async with serving(ServerSettings(grace_seconds=5), self._part) as port:
                started.set_result(port)
                await stop.wait()

        self._server = asyncio.ensure_future(run())
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{await started}")
        return _watch(self._channel), stop

    async def __aexit__(self, *exc: object) -> None:
        await self._channel.close()
        await self._server


async def test_what_a_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(ServerSettings(), Part(services=["test.Service"], register=lambda server: None)):
            raise ZeroDivisionError


async def test_a_connection_that_is_asked_again_and_again_whether_it_lives_stays() -> None:
    settings, acknowledged, ping = (bytes([0, 0, size, kind, flags, 0, 0, 0, 0]) for size, kind, flags in FRAMES)
    async with asyncio.timeout(10), serving(ServerSettings()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + acknowledged + (ping + b"whatever") * 10)
        kinds: list[int] = []
        while kinds.count(6) < 10:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            kinds.append(head[3])
            assert kinds[-1] != 7, "the server said GOAWAY"
        writer.close()
