"""Where an execution stands, as its events tell."""

from __future__ import annotations

from collections.abc import Iterator

from google.rpc import status_pb2

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent, NodeExecution
from mediamesh.wire.errors import MeshError

__all__ = ["TERMINAL", "apply", "begun", "closing_events", "has_ended", "node_has_ended"]

TERMINAL = frozenset(
    {
        execution_pb2.EXECUTION_STATE_SUCCEEDED,
        execution_pb2.EXECUTION_STATE_FAILED,
        execution_pb2.EXECUTION_STATE_CANCELLED,
    }
)
_OPEN_NODES = {execution_pb2.NODE_STATE_PENDING, execution_pb2.NODE_STATE_RUNNING}
_END_OF_NODE = {
    "node_finished": execution_pb2.NODE_STATE_SUCCEEDED,
    "node_failed": execution_pb2.NODE_STATE_FAILED,
    "node_skipped": execution_pb2.NODE_STATE_SKIPPED,
    "node_cancelled": execution_pb2.NODE_STATE_CANCELLED,
}


def has_ended(execution: Execution) -> bool:
    """Return whether nothing will happen to the execution any more."""
    return execution.state in TERMINAL


def node_has_ended(node: NodeExecution) -> bool:
    """Return whether nothing will happen to the node any more."""
    return node.state not in _OPEN_NODES


def begun(execution: Execution, seconds: float = 0.0) -> Execution:
    """Set an execution, which has its ids and its flow, to its beginning, and return it.

    Args:
        execution: The execution.
        seconds: How long it may take; 0 for no deadline.
    """
    execution.state = execution_pb2.EXECUTION_STATE_RUNNING
    execution.create_time.GetCurrentTime()
    if seconds:
        execution.deadline_time.FromNanoseconds(execution.create_time.ToNanoseconds() + round(seconds * 1e9))
    execution.nodes.extend(
        NodeExecution(node_id=node.id, state=execution_pb2.NODE_STATE_PENDING) for node in execution.flow.nodes
    )
    return execution


def apply(execution: Execution, nodes: dict[str, NodeExecution], event: ExecutionEvent) -> bool:
    """Bring an execution to where it stands after an event; return whether what is stored of it should change.

    Outputs alone do not count: they are stored when their node ends, so that many outputs do not rewrite each other.

    Args:
        execution: The execution.
        nodes: Its nodes by id, the same objects.
        event: The next event.
    """
    execution.last_sequence = event.sequence
    kind = event.WhichOneof("event")
    if kind == "execution_finished":
        execution.state = event.execution_finished.state
        if event.execution_finished.HasField("error"):
            execution.error.CopyFrom(event.execution_finished.error)
        execution.end_time.CopyFrom(event.time)
        return True
    if kind == "execution_taken_over":
        execution.takeovers = event.execution_taken_over.takeover
        return True
    node = nodes.get(event.node_id)
    return node is not None and _apply_to_node(node, event)


def _apply_to_node(node: NodeExecution, event: ExecutionEvent) -> bool:
    match kind := event.WhichOneof("event"):
        case "node_started":
            node.state = execution_pb2.NODE_STATE_RUNNING
            node.start_time.CopyFrom(event.time)
            node.attempt, node.start_sequence = event.node_started.attempt, event.sequence
            # What came of an earlier try does not count any more.
            node.ClearField("outputs")
        case "node_output":
            node.outputs[event.node_output.pin].CopyFrom(event.node_output.value)
            return False
        case "stream_available":
            _open_stream(node, event.stream_available)
        case "stream_complete":
            for stream in node.streams:
                stream.complete = stream.complete or stream.stream_id == event.stream_complete.stream_id
        case "node_finished" | "node_failed" | "node_skipped" | "node_cancelled":
            _end_node(node, kind, event)
        case _:
            return False
    return True


def _open_stream(node: NodeExecution, opened: execution_pb2.StreamAvailable) -> None:
    others = [stream for stream in node.streams if stream.pin != opened.pin]
    del node.streams[:]
    node.streams.extend([*others, execution_pb2.NodeStream(pin=opened.pin, stream_id=opened.stream_id)])


def _end_node(node: NodeExecution, kind: str, event: ExecutionEvent) -> None:
    node.state = _END_OF_NODE[kind]
    node.end_time.CopyFrom(event.time)
    node.cached = event.node_finished.cached
    if kind == "node_failed":
        node.error.CopyFrom(event.node_failed.error)
    if kind == "node_skipped":
        node.skipped.CopyFrom(event.node_skipped)


def closing_events(
    execution: Execution, state: execution_pb2.ExecutionState.ValueType, error: MeshError | None
) -> Iterator[ExecutionEvent]:
    """Yield the events that end an execution, without sequences: every node that is open is cancelled first."""
    now = ExecutionEvent(execution_id=execution.execution_id)
    now.time.GetCurrentTime()
    for node in execution.nodes:
        if node.state in _OPEN_NODES:
            event = ExecutionEvent(node_id=node.node_id, node_cancelled=execution_pb2.NodeCancelled())
            if node.state == execution_pb2.NODE_STATE_RUNNING:
                event.node_cancelled.duration.FromNanoseconds(
                    max(0, now.time.ToNanoseconds() - node.start_time.ToNanoseconds())
                )
            event.MergeFrom(now)
            yield event
    finished = execution_pb2.ExecutionFinished(
        state=state, error=error.to_status() if error is not None else _failure_of(execution, state)
    )
    finished.duration.FromNanoseconds(max(0, now.time.ToNanoseconds() - execution.create_time.ToNanoseconds()))
    event = ExecutionEvent(execution_finished=finished)
    event.MergeFrom(now)
    yield event


def _failure_of(execution: Execution, state: execution_pb2.ExecutionState.ValueType) -> status_pb2.Status | None:
    """Return the status of the first node that failed, its text naming the node."""
    if state != execution_pb2.EXECUTION_STATE_FAILED:
        return None
    for node in execution.nodes:
        if node.state == execution_pb2.NODE_STATE_FAILED:
            status = status_pb2.Status()
            status.CopyFrom(node.error)
            status.message = f"The node `{node.node_id}` failed: {node.error.message}"
            return status
    return None
