"""Ends runs whose orchestrator died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.orchestrator.runlog.parts import parts_of
from mediamesh.orchestrator.runlog.ports import Batch, EventLog, Fenced, RunRegistry, Stored
from mediamesh.orchestrator.state import apply, closing_events, has_ended
from mediamesh.wire.errors import Unavailable

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.execution_pb2 import Execution

__all__ = ["Store", "settled"]


class Store(EventLog, RunRegistry, Protocol):
    """Both ports, as one store."""

    async def check(self) -> None:
        """Raise Unavailable when the store is not there."""


async def settled(store: Store, stored: Stored) -> Execution:
    """Return the execution; when it runs and nobody holds it, end it first.

    Many may see this at once: the store lets one of them append, and the others read what that one did.
    """
    execution = stored.execution
    if stored.held or has_ended(execution):
        return execution
    nodes = {node.node_id: node for node in execution.nodes}
    last = execution.last_sequence
    error = Unavailable("The orchestrator that ran this execution is gone.")
    events = list(closing_events(execution, execution_pb2.EXECUTION_STATE_FAILED, error))
    for number, event in enumerate(events, last + 1):
        event.sequence = number
        apply(execution, nodes, event)
    batch = Batch(
        execution_id=execution.execution_id, events=events, changed=parts_of(execution), ended=True, abandoned=True
    )
    try:
        await store.append(batch)
    except Fenced:
        again = await store.load([execution.execution_id])
        return again[0].execution if again else execution
    return execution
