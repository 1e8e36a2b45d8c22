"""An orchestrator over a real Valkey, with agents written inline and a media server that is a dictionary."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest

from mediamesh.api.agent.v1 import agent_service_pb2_grpc
from mediamesh.api.flow.v1.flow_service_pb2_grpc import FlowServiceStub
from mediamesh.api.media.v1 import media_service_pb2_grpc
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.orchestrator import executions
from mediamesh.orchestrator.app import app
from mediamesh.orchestrator.settings import Settings
from tests.orchestrator.fake_agents import Agents
from tests.orchestrator.fake_media import FakeMedia


@asynccontextmanager
async def serving_agents(agents, port=0, **limits):
    part = Part(
        services=["mediamesh.api.agent.v1.AgentService"],
        register=lambda server: agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server),
    )
    async with serving(ServerSettings(grace_seconds=0, port=port, **limits), part) as taken:
        yield f"127.0.0.1:{taken}"


@pytest.fixture(scope="session", autouse=True)
def cancelled_is_ended():
    """Have who cancels a run wait for its end, however long that takes where the machine stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "_CANCEL_SECONDS", 60)
        yield


@pytest.fixture(scope="session")
def agents():
    return Agents()


@pytest.fixture
def release(agents):
    """Hold up what is slow until it is set."""
    agents.release.clear()
    yield agents.release
    agents.release.clear()


@pytest.fixture(scope="session")
async def agents_address(agents):
    async with serving_agents(agents) as address:
        yield address


@pytest.fixture(scope="session")
async def media_address():
    part = Part(
        services=["mediamesh.api.media.v1.MediaService"],
        register=lambda server: media_service_pb2_grpc.add_MediaServiceServicer_to_server(FakeMedia(), server),
    )
    async with serving(ServerSettings(grace_seconds=0), part) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def settings(valkey_url, media_address, agents_address):
    """Return a function that makes settings, which are patient with agents where the whole process is held up."""

    def make(**changes):
        return Settings(
            **{
                "valkey_url": valkey_url,
                "media_address": media_address,
                "agent_addresses": [agents_address],
                "agents_timeout_seconds": 20,
                "grace_seconds": 0.2,
                "retry_pause_seconds": 0.05,
                "retry_attempts": 2,
                **changes,
            }
        )

    return make


@asynccontextmanager
async def orchestrating(own):
    """Run an orchestrator, and yield its client, its channel and its address."""
    async with AsyncExitStack() as stack:
        part = await stack.enter_async_context(app(own))
        port = await stack.enter_async_context(serving(own, part))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{port}"))
        yield SimpleNamespace(
            flows=FlowClient(channel), stub=FlowServiceStub(channel), channel=channel, address=f"127.0.0.1:{port}"
        )


@pytest.fixture(scope="session")
async def mesh(settings):
    async with orchestrating(settings()) as running:
        yield running
