"""Puts the server for WebSockets together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.edge.sockets import Sockets

if TYPE_CHECKING:
    from starlette.requests import Request

    from mediamesh.edge.settings import Settings

__all__ = ["Edge", "app"]


@dataclass(frozen=True, slots=True)
class Edge:
    """The application, and its sockets."""

    asgi: Starlette
    sockets: Sockets


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Edge]:
    """Yield the application; all its sockets share one channel to the streams servers, and one to the orchestrators."""
    async with connect(settings.streams_address) as streams, connect(settings.flows_address) as flows:
        sockets = Sockets(settings, StreamServiceStub(streams), FlowClient(flows))

        async def healthz(_request: Request) -> PlainTextResponse:
            return PlainTextResponse("going away\n", 503) if sockets.is_leaving else PlainTextResponse("ok\n")

        routes = [
            Route("/healthz", healthz),
            WebSocketRoute("/api/v1/streams/{stream_id}/ws", sockets.serve_stream),
            WebSocketRoute("/v1/executions/{execution_id}/ws", sockets.serve_run),
        ]
        yield Edge(Starlette(routes=routes), sockets)
