"""Bytes that mean nothing, at every port, while streams run."""

from __future__ import annotations

import asyncio
import os
import random
import struct

import pytest

from tests.chaos.load import loaded

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
OPENINGS = [
    b"",
    PREFACE,
    PREFACE + SETTINGS,
    b"GET /api/v1/streams/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
    b"POST /mediamesh.api.stream.v1.StreamService/Publish HTTP/1.1\r\nContent-Type: application/grpc\r\n\r\n",
    b"GET /api/v1/streams/x/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


async def throw(port: int, data: bytes) -> None:
    """Send bytes to a port and wait for its answer, or for a moment."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(data)
                await writer.drain()
                while await reader.read(4096):
                    pass
            finally:
                writer.close()
    except OSError:  # and TimeoutError
        pass


def frames(random_bytes: random.Random) -> bytes:
    """Return HTTP/2 frames of random kinds, flags and streams, of honest length."""
    return b"".join(
        struct.pack(">I", len(body))[1:]
        + bytes([random_bytes.randrange(12), random_bytes.randrange(256)])
        + struct.pack(">I", random_bytes.randrange(64))
        + body
        for body in (random_bytes.randbytes(random_bytes.randrange(200)) for _ in range(50))
    )


async def test_garbage_at_every_port_harms_no_stream(cluster, history, verify) -> None:
    seeded = random.Random(3)
    ports = [cluster.ports[name] for name in ("door", "streams-0", "streams-1")]
    pids = [part.pid for part in cluster.parts]
    async with loaded(history, cluster.door, streams=20, events=40, pause=0.1) as load:
        await load.until(0.1)
        for opening in OPENINGS:
            junk = [opening + os.urandom(4096), opening + frames(seeded), opening[: len(opening) // 2]]
            await asyncio.gather(*(throw(port, data) for port in ports for data in junk))
    assert [part.pid for part in cluster.parts] == pids
    assert len(history.of("completed")) == 40
    verify()
