"""The inference server, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from mediamesh.inference.protocol.log_settings import LogSettings
from mediamesh.inference.protocol.shared_memory import SharedMemory
from mediamesh.inference.repository.memory import limit
from mediamesh.inference.repository.repository import open_repository
from mediamesh.inference.rest.handlers import EDGE_SERVICE, register_edge
from mediamesh.inference.rest.service import InferenceEdgeServicer
from mediamesh.inference.service import SERVICE, InferenceServicer, register
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import Part

__all__ = ["app"]


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Load the models and offer them."""
    if settings.memory_bytes:
        limit(settings.memory_bytes)
    with LogSettings() as logs:
        async with open_repository(settings) as repository:
            servicer = InferenceServicer(
                repository,
                SharedMemory(settings),
                logs,
                stream_requests=settings.stream_requests,
                stream_bytes=settings.stream_bytes,
                message_bytes=settings.max_message_bytes,
            )
            edge = InferenceEdgeServicer(
                servicer,
                most_bytes=settings.max_message_bytes,
                most_json=settings.rest_json_bytes,
                most_texts=settings.bytes_elements,
            )

            def register_both(server: grpc.aio.Server) -> None:
                register(servicer, server)
                register_edge(edge, server)

            yield Part(
                services=[SERVICE, EDGE_SERVICE],
                register=register_both,
                check=repository.check,
                drain=servicer.drain,
            )
