"""One streams server, the door before it, and every transport to it."""

from __future__ import annotations

import pytest

from mediamesh.client import StreamClient, connect
from tests.conformance.serving import streams_door, streams_server
from tests.conformance.transports import TRANSPORTS, Addresses

EVERY = [pytest.param(name, marks=pytest.mark.stack) for name in TRANSPORTS]
PUBLISHING = [pytest.param(name, marks=pytest.mark.stack) for name in ("grpc", "grpc-envoy", "websocket")]


@pytest.fixture(scope="session")
async def server(valkey_url):
    """Return the address of a streams server over a real Valkey."""
    async with streams_server(valkey_url) as address:
        yield address


@pytest.fixture(scope="session")
async def door(server, tmp_path_factory):
    """Return the address of a real Envoy before it."""
    async with streams_door(server, tmp_path_factory.mktemp("door")) as address:
        yield address


@pytest.fixture(scope="session")
async def streams(server):
    """Return a client at the server itself, with which streams are made."""
    async with connect(server) as channel:
        yield StreamClient(channel)


@pytest.fixture(params=EVERY)
def reading_over(request, server):
    """Return every transport in turn, and where it leads."""
    return request.param, _addresses(request, server)


@pytest.fixture(params=PUBLISHING)
def publishing_over(request, server):
    """Return every transport that can publish, and where it leads."""
    return request.param, _addresses(request, server)


@pytest.fixture
async def transport(reading_over):
    """Return every transport, open."""
    name, addresses = reading_over
    async with TRANSPORTS[name](addresses) as opened:
        yield opened


@pytest.fixture
async def producing(publishing_over):
    """Return every transport that can publish, open."""
    name, addresses = publishing_over
    async with TRANSPORTS[name](addresses) as opened:
        yield opened


def _addresses(request, server: str) -> Addresses:
    # The door is opened for those who need it; not in an async fixture, in which no other can be asked for.
    return Addresses(server, "" if request.param == "grpc" else request.getfixturevalue("door"))
