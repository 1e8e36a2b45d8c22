"""Runs the web server for as long as a block lasts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from mediamesh.edge.app import app
from mediamesh.edge.settings import Settings

__all__ = ["serving"]

_BACKLOG = 2048


class _Server(uvicorn.Server):
    """Uvicorn, without its signal handlers, and with word of when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[int]:
    """Serve WebSockets, yield the port, then drain: every socket hears where to go on.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    async with app(settings) as edge:
        server = _Server(
            uvicorn.Config(
                edge.asgi,
                # Its own log would have addresses in it, and with them the tokens of producers.
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="websockets-sansio",
                ws_max_size=settings.max_frame_bytes,
                ws_ping_interval=settings.ping_seconds,
                ws_ping_timeout=settings.pong_seconds,
                # It costs each socket 40 KB and a processor's time; media are packed already.
                ws_per_message_deflate=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))
        listens = asyncio.create_task(server.listens.wait())
        try:
            await asyncio.wait([task, listens], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            yield listener.getsockname()[1]
        finally:
            await edge.sockets.leave(settings.grace_seconds)
            server.should_exit = True
            listens.cancel()
            await asyncio.wait([task, listens])
            listener.close()
