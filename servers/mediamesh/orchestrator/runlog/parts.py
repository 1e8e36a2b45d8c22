"""How an execution is cut into parts, so that a node that changes does not rewrite all the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mediamesh.api.flow.v1.execution_pb2 import Execution, NodeExecution

__all__ = ["HEAD", "INPUTS", "assembled", "inputs_part", "parts_of"]

HEAD = "head"
INPUTS = "inputs"
_NODE = "node:"


def parts_of(execution: Execution, nodes: Iterable[str] | None = None, *, head: bool = True) -> dict[str, bytes]:
    """Return the parts of an execution: those of the named nodes, or of all."""
    wanted = None if nodes is None else set(nodes)
    parts = {
        f"{_NODE}{node.node_id}": node.SerializeToString()
        for node in execution.nodes
        if wanted is None or node.node_id in wanted
    }
    if head:
        bare = Execution()
        bare.CopyFrom(execution)
        bare.ClearField("nodes")
        bare.ClearField("inputs")
        parts[HEAD] = bare.SerializeToString()
    return parts


def inputs_part(execution: Execution) -> dict[str, bytes]:
    """Return the part with what the client gave, which never changes."""
    return {INPUTS: Execution(inputs=execution.inputs).SerializeToString()}


def assembled(parts: Mapping[str, bytes], last_sequence: int) -> Execution:
    """Return the execution that the parts make, its nodes in the order of the flow."""
    execution = Execution.FromString(parts[HEAD])
    execution.last_sequence = last_sequence
    execution.MergeFromString(parts.get(INPUTS, b""))
    for node in execution.flow.nodes:
        execution.nodes.append(NodeExecution.FromString(parts[f"{_NODE}{node.id}"]))
    return execution
