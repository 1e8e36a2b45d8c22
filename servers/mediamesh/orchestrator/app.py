"""Puts the orchestrator together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc

from mediamesh.api.flow.v1 import flow_edge_service_pb2_grpc, flow_service_pb2_grpc
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient
from mediamesh.client.streams import StreamClient
from mediamesh.kit.serve import Part
from mediamesh.orchestrator.catalog import Catalog
from mediamesh.orchestrator.execution import Results
from mediamesh.orchestrator.executions import Executions
from mediamesh.orchestrator.factory import RunFactory
from mediamesh.orchestrator.results import MemoryResults, ValkeyResults
from mediamesh.orchestrator.runlog import RunLog, Store
from mediamesh.orchestrator.runlog.memory import Memory, MemoryStore
from mediamesh.orchestrator.runlog.valkey import ValkeyStore
from mediamesh.orchestrator.running import Running
from mediamesh.orchestrator.service import FlowEdgeServicer, FlowServicer
from mediamesh.orchestrator.settings import Settings
from mediamesh.orchestrator.takeover import Takeover

__all__ = ["app"]

_SERVICES = ("mediamesh.api.flow.v1.FlowService", "mediamesh.api.flow.v1.FlowEdgeService")


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Yield the orchestrator's part of a server; what it runs goes on until the block ends."""
    async with AsyncExitStack() as stack:
        replica = secrets.token_hex(8)
        store = await _store(settings, replica, stack)
        media = MediaClient(await stack.enter_async_context(connect(settings.media_address)))
        catalog = await stack.enter_async_context(
            Catalog.open(
                settings.agent_addresses,
                refresh_seconds=settings.agents_refresh_seconds,
                timeout_seconds=settings.agents_timeout_seconds,
            )
        )
        streams = None
        if settings.streams_address and settings.enable_streaming:
            streams = StreamClient(await stack.enter_async_context(connect(settings.streams_address)))
        log = RunLog(store, heartbeat_seconds=settings.heartbeat_seconds, lease_seconds=settings.lease_seconds)
        results = await _results(settings, stack)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = Running(settings, store=store, log=log, tasks=tasks)
        factory = RunFactory(
            settings=settings,
            log=log,
            catalog=catalog,
            media=media,
            streams=streams,
            results=results,
            later=running.later,
        )
        takeover = Takeover(
            settings, store=store, log=log, running=running, factory=factory, streams=streams, replica=replica
        )
        executions = Executions(
            settings, store=store, log=log, catalog=catalog, factory=factory, running=running, takeover=takeover
        )
        chores = [tasks.create_task(chore) for chore in (executions.serve(), running.renew(), takeover.watch())]
        drain = partial(running.drain, heirs=not isinstance(store, MemoryStore))
        try:
            yield Part(
                services=_SERVICES,
                register=lambda server: _register(server, executions, log, catalog),
                check=store.check,
                drain=drain,
            )
        finally:
            await drain()
            for chore in chores:
                chore.cancel()


async def _store(settings: Settings, replica: str, stack: AsyncExitStack) -> Store:
    if settings.valkey_url in {"", "memory"}:
        return MemoryStore(
            Memory(), replica=replica, ttl_seconds=settings.log_ttl_seconds, lease_seconds=settings.lease_seconds
        )
    return await stack.enter_async_context(
        ValkeyStore.open(
            settings.valkey_url,
            replica=replica,
            ttl_seconds=settings.log_ttl_seconds,
            lease_seconds=settings.lease_seconds,
        )
    )


async def _results(settings: Settings, stack: AsyncExitStack) -> Results | None:
    if not settings.cache_max_bytes:
        return None
    if settings.valkey_url in {"", "memory"}:
        return MemoryResults()
    return await stack.enter_async_context(ValkeyResults.open(settings.valkey_url))


def _register(server: grpc.aio.Server, executions: Executions, log: RunLog, catalog: Catalog) -> None:
    flow_service_pb2_grpc.add_FlowServiceServicer_to_server(FlowServicer(executions, log, catalog), server)
    flow_edge_service_pb2_grpc.add_FlowEdgeServiceServicer_to_server(FlowEdgeServicer(log), server)
