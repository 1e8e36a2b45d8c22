"""Serves agents: in a block, as a part of a server, or as a process of their own."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.agent.host import hosting
from mediamesh.agent.manifest import InvalidManifest
from mediamesh.agent.service import AgentServicer
from mediamesh.agent.settings import AgentSettings
from mediamesh.api.agent.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient
from mediamesh.kit.logs import configure_logs
from mediamesh.kit.serve import Part, serving, until_signalled
from mediamesh.kit.settings import CommonSettings, SettingsError
from mediamesh.kit.telemetry import telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from mediamesh.agent.agent import Agent
    from mediamesh.agent.host import AgentHost
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

__all__ = ["agents_part", "main", "serving_agents"]

_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def agents_part(settings: AgentSettings, *agents: Agent) -> AsyncGenerator[Part]:
    """Open the agents as a part of a server.

    Raises:
        InvalidManifest: a manifest is wrong, or two agents have the same id.
    """
    async with _hosted(settings, agents) as (_, part):
        yield part


@asynccontextmanager
async def _hosted(settings: AgentSettings, agents: Iterable[Agent]) -> AsyncGenerator[tuple[AgentHost, Part]]:
    described = _described(agents)
    async with AsyncExitStack() as stack:
        media = None
        if settings.media_address:
            media = MediaClient(await stack.enter_async_context(connect(settings.media_address)))
        host = await stack.enter_async_context(hosting(settings, described, media))
        servicer = AgentServicer(host, settings)
        yield (
            host,
            Part(
                services=["mediamesh.api.agent.v1.AgentService"],
                register=lambda server: add_AgentServiceServicer_to_server(servicer, server),
            ),
        )


@asynccontextmanager
async def serving_agents(settings: AgentSettings, *agents: Agent) -> AsyncGenerator[int]:
    """Serve the agents for as long as the block lasts; yields the port."""
    async with agents_part(settings, *agents) as part, serving(settings, part) as port:
        yield port


def main(*agents: Agent) -> None:
    """Serve the agents until SIGTERM, Ctrl-C, or the end of the last of ``max_runs``.

    Exits with 2 when a setting or a manifest is wrong.

    Settings are read from ``MEDIAMESH_AGENT_*``, such as ``MEDIAMESH_AGENT_PORT``.
    """
    try:
        common, settings = CommonSettings.load(), AgentSettings.load()
        names = list(_described(agents))
    except (SettingsError, InvalidManifest) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logs(common)
    with telemetry(names[0], common, host=settings.host, metrics_port=settings.metrics_port):
        asyncio.run(_serve(settings, names, agents))


async def _serve(settings: AgentSettings, names: Iterable[str], agents: Iterable[Agent]) -> None:
    async with _hosted(settings, agents) as (host, part), serving(settings, part) as port:
        _LOG.info("%s on %s:%d", ", ".join(names), settings.host, port)
        await until_signalled(host.spent)


def _described(agents: Iterable[Agent]) -> Mapping[str, tuple[Agent, Manifest]]:
    described: dict[str, tuple[Agent, Manifest]] = {}
    for agent in agents:
        manifest = agent.describe()
        if manifest.id in described:
            raise InvalidManifest.of_field("id", f"two agents have the id {manifest.id}")
        described[manifest.id] = agent, manifest
    return described
