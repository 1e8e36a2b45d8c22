"""A server for WebSockets before a streams server that keeps its streams in memory; both are real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosedError

from mediamesh.client.channel import connect
from mediamesh.client.streams import StreamClient
from mediamesh.edge.serve import serving as serving_edge
from mediamesh.edge.settings import Settings
from mediamesh.kit.serve import serving
from mediamesh.streams.app import app
from mediamesh.streams.settings import Settings as StreamSettings
from mediamesh.wire.binary_frames import unpack


@asynccontextmanager
async def streams_server(port=0, **changes):
    settings = StreamSettings(valkey_url="", port=port, grace_seconds=0, ack_seconds=0.01, **changes)
    async with app(settings) as part, serving(settings, part) as taken:
        yield taken


@asynccontextmanager
async def edge_server(streams_port, **changes):
    """Run a server for WebSockets; yield what opens sockets to it."""
    settings = Settings(streams_address=f"127.0.0.1:{streams_port}", **{"grace_seconds": 5, **changes})
    async with serving_edge(settings) as port:
        yield Edge(port)


class Edge:
    def __init__(self, port):
        self.port = port

    def open(self, stream_id, /, *, origin=None, headers=None, **query):
        query_text = "&".join(f"{name}={value}" for name, value in query.items())
        url = f"ws://127.0.0.1:{self.port}/api/v1/streams/{stream_id}/ws?{query_text}"
        return connect_socket(url, origin=origin, additional_headers=headers, ping_interval=None, compression=None)

    def publish(self, opened, **query):
        return self.open(opened.stream_id, publish=1, token=opened.publish_token, **query)


@pytest.fixture(scope="session")
async def streams_port():
    async with streams_server() as port:
        yield port


@pytest.fixture(scope="session")
async def streams(streams_port):
    async with connect(f"127.0.0.1:{streams_port}") as channel:
        yield StreamClient(channel)


@pytest.fixture(scope="session")
async def edge(streams_port):
    async with edge_server(streams_port) as running:
        yield running


async def objects(socket) -> AsyncIterator[Any]:
    """Yield the objects of a socket until it closes; those of binary frames as pairs with their bytes."""
    with suppress(ConnectionClosedError):  # the test looks at the code
        async for message in socket:
            yield json.loads(message) if isinstance(message, str) else unpack(message)


async def next_of(socket):
    return json.loads(await socket.recv())
