"""Puts the streams server together."""

from __future__ import annotations

import gc
import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypedDict

from mediamesh.kit.serve import Part
from mediamesh.streams.broker import Broker
from mediamesh.streams.capabilities import capabilities_of
from mediamesh.streams.http import EDGE_SERVICE, StreamEdgeServicer, register_edge
from mediamesh.streams.log.memory import MemoryStore
from mediamesh.streams.log.valkey import ValkeyStore
from mediamesh.streams.service import SERVICE, StreamServicer, register
from mediamesh.streams.settings import Settings

if TYPE_CHECKING:
    import grpc

    from mediamesh.streams.log.ports import StreamStore


__all__ = ["app"]

_THRESHOLDS = (20_000, 20, 50)


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Yield the part of a server that keeps streams."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_collected_seldom())
        replica = secrets.token_hex(8)
        store = await _store(settings, replica, stack)
        broker = await stack.enter_async_context(Broker.running(store, settings, replica=replica))

        def add(server: grpc.aio.Server) -> None:
            register(StreamServicer(broker, capabilities_of(settings)), server)
            register_edge(StreamEdgeServicer(broker), server)

        async def drain() -> None:
            broker.leave()

        yield Part(services=(SERVICE, EDGE_SERVICE), register=add, check=broker.check, drain=drain)


@contextmanager
def _collected_seldom() -> Generator[None]:
    """Let garbage be looked for less often: what thousands of streams have in flight is none, and looked at each time.

    It took an eighth of the time of an event.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _store(settings: Settings, replica: str, stack: AsyncExitStack) -> StreamStore:
    rules: _Rules = {
        "replica": replica,
        "max_concurrent_streams": settings.max_concurrent_streams,
        "resume_seconds": settings.resume_seconds,
        "buffer_ttl_seconds": settings.buffer_ttl_seconds,
        "meta_ttl_seconds": settings.meta_ttl_seconds,
    }
    if settings.valkey_url in {"", "memory"}:
        return await stack.enter_async_context(MemoryStore.open(**rules))
    return await stack.enter_async_context(ValkeyStore.open(settings.valkey_url, **rules))


class _Rules(TypedDict):
    replica: str
    max_concurrent_streams: int
    resume_seconds: float
    buffer_ttl_seconds: float
    meta_ttl_seconds: float
