"""The proxy does what its name says, or the scenarios that use it prove nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from tests.chaos.proxy import proxied


@asynccontextmanager
async def echo(**options):
    """Yield a proxy before a server that says back what it is told."""

    async def serve(reader, writer) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with proxied(server.sockets[0].getsockname()[1], **options) as proxy:
            yield proxy
    finally:
        server.close()


async def say(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    reader, writer = connection
    writer.write(text)
    return await reader.readexactly(len(text))


async def test_a_proxy_passes_on() -> None:
    async with echo() as proxy:
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(connection, b"hello") == b"hello"
        assert proxy.connections == 1
        connection[1].close()


async def test_a_cut_is_a_reset_and_refuses_until_it_heals() -> None:
    async with echo() as proxy:
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        await say(connection, b"hello")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await connection[0].readexactly(1)
        refused = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await refused[0].readexactly(1)
        proxy.heal()
        healed = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await say(healed, b"again") == b"again"
        for one in (connection, refused, healed):
            one[1].close()


async def test_what_is_swallowed_comes_when_it_heals() -> None:
    async with echo() as proxy:
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        await say(connection, b"hello")
        proxy.swallow()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await say(connection, b"again")
        proxy.heal()
        assert await connection[0].readexactly(5) == b"again"
        connection[1].close()


async def test_a_slow_proxy_is_slow() -> None:
    async with echo(bytes_per_second=20_000) as proxy:
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        begin = time.monotonic()
        await say(connection, b"x" * 10_000)
        assert time.monotonic() - begin > 0.4
        connection[1].close()
