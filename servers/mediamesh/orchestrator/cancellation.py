"""What cancelling saved and what it wasted, as metrics.

A node that had not begun is saved whole, one that ran is stopped early: the rest of it, by the mean time that its agent
takes, is saved, and what it had run is wasted. What was taken out of the queues of inference servers they count
themselves (``mediamesh_inference_dropped{reason="cancelled"}``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.flow.v1.execution_pb2 import NODE_STATE_CANCELLED, NODE_STATE_SUCCEEDED

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.execution_pb2 import Execution, NodeExecution

__all__ = ["CancelledNode", "Durations", "account", "cancelled_nodes"]

_METER = metrics.get_meter("mediamesh.orchestrator")
_NODES = _METER.create_counter(
    "mediamesh_flow_cancelled_nodes", description="Nodes that were cancelled, by agent and whether they had begun."
)
_WASTED = _METER.create_counter(
    "mediamesh_flow_cancel_wasted", unit="s", description="How long nodes had run that were cancelled, by agent."
)
_SAVED = _METER.create_counter(
    "mediamesh_flow_cancel_saved",
    unit="s",
    description="How much longer cancelled nodes would have run by the mean time of their agents, by agent.",
)
_WEIGHT = 0.1
_AGENTS = 1000


@dataclass(frozen=True, slots=True)
class CancelledNode:
    """A node that was cancelled.

    Attributes:
        agent_id: Its agent.
        began: Whether it had begun.
        wasted_seconds: How long it had run.
        saved_seconds: How much longer it would have run; 0 where its agent is not known yet.
    """

    agent_id: str
    began: bool
    wasted_seconds: float
    saved_seconds: float


class Durations:
    """How long nodes take that succeed: a moving mean for each agent, of 1000 agents at most."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def learn(self, agent_id: str, seconds: float) -> None:
        """Take note of a node that succeeded."""
        if agent_id in self._means:
            self._means[agent_id] += _WEIGHT * (seconds - self._means[agent_id])
        elif len(self._means) < _AGENTS:
            self._means[agent_id] = seconds

    def left(self, agent_id: str, seconds: float) -> float:
        """Return how much longer a node should run that has run for so long."""
        return max(0.0, self._means.get(agent_id, 0.0) - seconds)


def account(execution: Execution, durations: Durations) -> None:
    """Count what the end of a run saved and wasted, and learn from what succeeded."""
    for cancelled in cancelled_nodes(execution, durations):
        _NODES.add(1, {"agent_id": cancelled.agent_id, "began": cancelled.began})
        _WASTED.add(cancelled.wasted_seconds, {"agent_id": cancelled.agent_id})
        _SAVED.add(cancelled.saved_seconds, {"agent_id": cancelled.agent_id})
    for known, node in zip(execution.flow.nodes, execution.nodes, strict=True):
        if node.state == NODE_STATE_SUCCEEDED and not node.cached:
            durations.learn(known.type, _seconds(node))


def cancelled_nodes(execution: Execution, durations: Durations) -> Iterator[CancelledNode]:
    """Yield what became of each node that was cancelled."""
    for known, node in zip(execution.flow.nodes, execution.nodes, strict=True):
        if node.state == NODE_STATE_CANCELLED:
            ran = _seconds(node)
            yield CancelledNode(known.type, node.HasField("start_time"), ran, durations.left(known.type, ran))


def _seconds(node: NodeExecution) -> float:
    if not node.HasField("start_time"):
        return 0.0
    return max(0, node.end_time.ToNanoseconds() - node.start_time.ToNanoseconds()) / 1e9
