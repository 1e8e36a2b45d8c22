"""What `ui.*` nodes get: it is recorded as theirs, so that a client shows the events of these nodes only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import agent_service_pb2

if TYPE_CHECKING:
    from mediamesh.orchestrator.execution.inbox import Inbox, Pipe
    from mediamesh.orchestrator.execution.journal import Journal

__all__ = ["show"]


async def show(node_id: str, inbox: Inbox, journal: Journal) -> None:
    """Record every value and every chunk that a node gets under the pin where it came in."""
    for pin, value in inbox.values.items():
        await journal.record(node_id, node_output=agent_service_pb2.PinValue(pin=pin, value=value))
    try:
        async with asyncio.TaskGroup() as tasks:
            for pin, pipe in inbox.pipes.items():
                tasks.create_task(_show_stream(node_id, pin, pipe, journal))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


async def _show_stream(node_id: str, pin: str, pipe: Pipe, journal: Journal) -> None:
    while (chunk := await pipe.get()) is not None:
        await journal.record(node_id, node_chunk=agent_service_pb2.PinChunk(pin=pin, chunk=chunk))
