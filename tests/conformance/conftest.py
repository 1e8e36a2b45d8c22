"""One streams server, the door before it, and every transport to it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from mediamesh.client import StreamClient, connect
from mediamesh.edge import serve as edge
from mediamesh.edge.settings import Settings as EdgeSettings
from mediamesh.kit.serve import serving
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from mediamesh.streams.app import app
from mediamesh.streams.settings import Settings
from tests.conformance.transports import TRANSPORTS, Addresses

BY_ITSELF = "grpc"


def _parameter(name: str):
    return pytest.param(name, marks=[] if name == BY_ITSELF else [pytest.mark.stack])


EVERY = [_parameter(name) for name in TRANSPORTS]
PUBLISHING = [_parameter(name) for name in ("grpc", "grpc-envoy", "websocket")]


@pytest.fixture(scope="session")
async def server(valkey_url):
    """Return the address of a streams server over a real Valkey."""
    settings = Settings(valkey_url=valkey_url, grace_seconds=0.2, max_subscribers=1000, resume_seconds=1)
    async with AsyncExitStack() as stack:
        part = await stack.enter_async_context(app(settings))
        yield f"127.0.0.1:{await stack.enter_async_context(serving(settings, part))}"


@pytest.fixture(scope="session")
async def door(server, tmp_path_factory):
    """Return the address of a real Envoy before it."""
    folder = tmp_path_factory.mktemp("door")
    port, admin_port = free_ports(2)
    host, _, server_port = server.partition(":")
    async with AsyncExitStack() as stack:
        sockets = await stack.enter_async_context(edge.serving(EdgeSettings(streams_address=server, grace_seconds=0.2)))
        program = envoy(
            Door(
                host="127.0.0.1",
                port=port,
                admin_port=admin_port,
                servers={"streams": [(host, int(server_port))]},
                edge=[(host, sockets)],
                template=UpSettings().envoy_template,
                folder=folder,
                access_log=folder / "access.jsonl",
                web=folder / "no-web",
            )
        )
        await stack.enter_async_context(running(program, folder / "envoy.log"))
        yield f"127.0.0.1:{port}"


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
    return Addresses(server, "" if request.param == BY_ITSELF else request.getfixturevalue("door"))
