"""Runs that broke off after any of their events: what an orchestrator that was killed there leaves in the store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from mediamesh.api.flow.v1.execution_pb2 import Execution
from mediamesh.orchestrator.execution.journal import Journal, LogBounds
from mediamesh.orchestrator.runlog.identity import new_id
from mediamesh.orchestrator.runlog.valkey import ValkeyStore
from mediamesh.orchestrator.state import begun

__all__ = ["cut_after", "opened"]

_BOUNDS = LogBounds(event_bytes=1 << 20, events=10_000, bytes=1 << 26)


@asynccontextmanager
async def opened(settings):
    """Open the store of orchestrators with these settings, as one that will be gone."""
    async with ValkeyStore.open(settings.valkey_url, replica=new_id(), ttl_seconds=60, lease_seconds=60) as store:
        yield store


async def cut_after(store, whole, events):
    """Store a new run of the same flow in which just these events have happened, and which nobody holds; return its id.

    Each event is stored by itself, as the journal does it whose queue is never behind.
    """
    execution = begun(Execution(execution_id=new_id(), workspace_id="cut", flow=whole.flow), 60)
    for key, value in whole.inputs.items():
        execution.inputs[key].CopyFrom(value)
    await store.create(execution)
    journal = Journal(store, execution, _BOUNDS)
    writing = asyncio.ensure_future(journal.write())
    for event in events:
        kind = event.WhichOneof("event")
        await journal.record(event.node_id, **{kind: getattr(event, kind)})
        await journal.flush()
    writing.cancel()
    await store.release(execution.execution_id, 0)
    return execution.execution_id
