"""Writes to the logs of runs that nobody holds: that one is taken over, or that it ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent
from mediamesh.orchestrator.runlog.parts import parts_of
from mediamesh.orchestrator.runlog.ports import Batch, Fenced, Store, Stored
from mediamesh.orchestrator.state import apply, closing_events
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["claim", "end_abandoned", "open_streams"]


def open_streams(execution: Execution) -> list[str]:
    """Return the ids of streams that the run opened and did not end."""
    return [stream.stream_id for node in execution.nodes for stream in node.streams if not stream.complete]


async def claim(store: Store, stored: Stored, orchestrator: str) -> bool:
    """Hold a run from now on, its execution brought to where it then stands; return whether nobody else was faster.

    The log says so, and that the streams of before have ended. Everything that an earlier holder still says is refused
    from then on, as its fence is older.

    Raises:
        Unavailable: the store cannot be reached.
    """
    execution = stored.execution
    taken = execution_pb2.ExecutionTakenOver(takeover=stored.fence + 1, orchestrator=orchestrator)
    events = [*_beginning(execution), ExecutionEvent(execution_taken_over=taken), *_stream_ends(execution)]
    changed = _applied(execution, events)
    batch = Batch(
        execution_id=execution.execution_id, events=events, changed=changed, fence=stored.fence + 1, claim=True
    )
    return await _appended(store, batch)


async def end_abandoned(
    store: Store, stored: Stored, state: execution_pb2.ExecutionState.ValueType, error: MeshError
) -> bool:
    """End a run that nobody holds; return whether nobody else was faster.

    Raises:
        Unavailable: the store cannot be reached.
    """
    execution = stored.execution
    events = [*_beginning(execution), *_stream_ends(execution), *closing_events(execution, state, error)]
    changed = _applied(execution, events)
    batch = Batch(execution_id=execution.execution_id, events=events, changed=changed, ended=True, abandoned=True)
    return await _appended(store, batch)


def _beginning(execution: Execution) -> Iterator[ExecutionEvent]:
    """Yield the first event of a run whose orchestrator died before it could say that it began."""
    if not execution.last_sequence:
        yield ExecutionEvent(
            execution_started=execution_pb2.ExecutionStarted(flow=execution.flow, workspace_id=execution.workspace_id)
        )


def _stream_ends(execution: Execution) -> Iterator[ExecutionEvent]:
    for node in execution.nodes:
        for stream in node.streams:
            if not stream.complete:
                ended = execution_pb2.StreamComplete(stream_id=stream.stream_id, pin=stream.pin)
                yield ExecutionEvent(node_id=node.node_id, stream_complete=ended)


def _applied(execution: Execution, events: Iterable[ExecutionEvent]) -> dict[str, bytes]:
    nodes, changed = {node.node_id: node for node in execution.nodes}, set[str]()
    for number, event in enumerate(events, execution.last_sequence + 1):
        event.execution_id, event.sequence = execution.execution_id, number
        if not event.HasField("time"):
            event.time.GetCurrentTime()
        if apply(execution, nodes, event):
            changed.add(event.node_id)
    return parts_of(execution, changed)


async def _appended(store: Store, batch: Batch) -> bool:
    try:
        await store.append(batch)
    except Fenced:
        return False
    return True
