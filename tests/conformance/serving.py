"""A streams server, and the door before it with all its edges."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from mediamesh.edge import serve as edge
from mediamesh.edge.settings import Settings as EdgeSettings
from mediamesh.kit.serve import serving
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from mediamesh.streams.app import app
from mediamesh.streams.settings import Settings

__all__ = ["streams_door", "streams_server"]


@asynccontextmanager
async def streams_server(valkey_url: str) -> AsyncGenerator[str]:
    """Yield the address of a streams server over a real Valkey."""
    # A place is kept for as long as a slow machine takes to come: without any, what is held is let go.
    settings = Settings(valkey_url=valkey_url, grace_seconds=0.2, resume_seconds=60)
    async with AsyncExitStack() as stack:
        part = await stack.enter_async_context(app(settings))
        yield f"127.0.0.1:{await stack.enter_async_context(serving(settings, part))}"


@asynccontextmanager
async def streams_door(server: str, folder: Path) -> AsyncGenerator[str]:
    """Yield the address of a real Envoy before it."""
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
