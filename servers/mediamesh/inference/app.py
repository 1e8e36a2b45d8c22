"""The inference server, put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from mediamesh.inference.repository import open_repository
from mediamesh.inference.service import SERVICE, InferenceServicer, register
from mediamesh.inference.settings import Settings
from mediamesh.inference.shared_memory import SharedMemory
from mediamesh.kit.serve import Part

__all__ = ["app"]


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Load the models and offer them."""
    async with open_repository(settings) as repository:
        servicer = InferenceServicer(
            repository,
            SharedMemory(settings),
            stream_requests=settings.stream_requests,
            stream_bytes=settings.stream_bytes,
        )
        yield Part(
            services=[SERVICE],
            register=lambda server: register(servicer, server),
            check=repository.check,
            drain=servicer.drain,
        )
