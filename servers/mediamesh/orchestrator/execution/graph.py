"""Runs every node of a flow as soon as what it needs is there."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2
from opentelemetry import metrics, trace

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.orchestrator.builtin import SINKS, SOURCES
from mediamesh.orchestrator.execution.agent_node import failure_at
from mediamesh.orchestrator.execution.fan_out import run_each
from mediamesh.orchestrator.execution.gates import targets_of
from mediamesh.orchestrator.execution.inbox import Bounds, Inbox, Skipped
from mediamesh.orchestrator.execution.outbox import Outbox
from mediamesh.orchestrator.execution.terminal import show
from mediamesh.orchestrator.wiring import ends, hazards, is_constant
from mediamesh.wire.errors import DeadlineExceeded, MeshError, OutOfRange, StreamTimeout
from mediamesh.wire.pins import MEDIA_TYPES, plain_value, type_name

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowNode
    from mediamesh.orchestrator.execution.agent_node import AgentNodes
    from mediamesh.orchestrator.execution.broadcast import Broadcast
    from mediamesh.orchestrator.execution.journal import Journal
    from mediamesh.orchestrator.execution.recall import Recall

__all__ = ["Graph"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.orchestrator")
_METER = metrics.get_meter("mediamesh.orchestrator")
_NODE_SECONDS = _METER.create_histogram(
    "mediamesh_flow_node_duration", unit="s", description="How long nodes ran, by agent and end."
)
_PROCESSING_SECONDS = _METER.create_histogram(
    "mediamesh_multimodal_processing", unit="s", description="How long agents worked on media, by its type."
)


class Graph:
    """One run of a flow.

    Args:
        flow: A flow that passed its check.
        inputs: What the client gave, by node and pin.
        journal: Told of everything that happens.
        broadcast: Where stream pins are published.
        agents: Runs the nodes that are agents.
        bounds: How much may wait on a stream pin.
        timeout_seconds: How long a node may run that does not say it itself.
        recall: What happened before this orchestrator took the run over; None for a run that begins.
    """

    def __init__(
        self,
        flow: Flow,
        inputs: Mapping[tuple[str, str], value_pb2.Value],
        *,
        journal: Journal,
        broadcast: Broadcast,
        agents: AgentNodes,
        bounds: Bounds,
        timeout_seconds: float,
        recall: Recall | None = None,
    ) -> None:
        self._flow = flow
        self._inputs = inputs
        self._journal = journal
        self._broadcast = broadcast
        self._agents = agents
        self._timeout = timeout_seconds
        self._recall = recall
        dangerous = hazards(flow)
        self._inboxes = {node.id: _inbox(node, flow, dangerous, bounds) for node in flow.nodes}
        targets = targets_of(flow, self._inboxes)
        self._outboxes = {
            node.id: Outbox(node, targets, journal, broadcast, told=recall.told(node.id) if recall else None)
            for node in flow.nodes
        }
        self._failed = False
        self._cached: set[str] = set()

    async def run(self) -> bool:
        """Run all nodes; return whether every one of them succeeded."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._flow.nodes:
                tasks.create_task(self._node(node), name=f"node {node.id}")
        return not self._failed

    async def _node(self, node: FlowNode) -> None:
        if self._recall is not None and self._recall.has(node.id):
            await self._recalled(node, self._recall)
            return
        inbox, outbox = self._inboxes[node.id], self._outboxes[node.id]
        begin, cause, withheld = monotonic(), node.id, False
        try:
            await inbox.ready()
            begin = monotonic()
            await self._observed(node)
            finished = execution_pb2.NodeFinished(duration=_since(begin), cached=node.id in self._cached)
            await self._journal.record(node.id, node_finished=finished)
        except Skipped as skipped:
            cause, withheld = skipped.cause, skipped.by_condition
            self._failed = self._failed or not withheld
            told_skipped = execution_pb2.NodeSkipped(cause_node_id=cause, by_condition=withheld)
            await self._journal.record(node.id, node_skipped=told_skipped)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it fails its node, and the rest goes on
            told = _told(node, error)
            self._failed = True
            failed = execution_pb2.NodeFailed(error=told.to_status(), duration=_since(begin))
            await self._journal.record(node.id, node_failed=failed)
            await self._broadcast.fail(node.id, told)
        await (outbox.withhold(cause) if withheld else outbox.lose(cause))
        await inbox.leave()

    async def _recalled(self, node: FlowNode, recall: Recall) -> None:
        """Let those nodes go on that need what a node gave, which had ended before."""
        # Nobody reads here any more: who still sends must not wait for it.
        await self._inboxes[node.id].leave()
        self._failed = self._failed or recall.failed(node.id)
        self._agents.publish(node, recall.unpublished(node), self._seconds(node))
        try:
            await recall.give(node, self._outboxes[node.id])
        except OutOfRange as error:
            self._failed = True
            await self._broadcast.fail(node.id, error)
            await self._outboxes[node.id].lose(node.id)

    async def _observed(self, node: FlowNode) -> None:
        begin, end = monotonic(), "failed"
        with _TRACER.start_as_current_span(
            f"node {node.id}", attributes={"mediamesh.node_id": node.id, "mediamesh.agent_id": node.type}
        ):
            try:
                await self._work(node)
                end = "succeeded"
            except asyncio.CancelledError:
                end = "cancelled"
                raise
            finally:
                seconds = monotonic() - begin
                _NODE_SECONDS.record(seconds, {"agent_id": node.type, "state": end})
                for kind in {pin.type for pin in node.input_pins if pin.type in MEDIA_TYPES}:
                    _PROCESSING_SECONDS.record(
                        seconds, {"type": type_name(kind), "agent_id": node.type, "operation": "run"}
                    )

    async def _work(self, node: FlowNode) -> None:
        seconds = self._seconds(node)
        begin, limit = monotonic(), asyncio.timeout(seconds)
        try:
            async with limit:
                await self._kind_of_work(node, seconds)
        except StreamTimeout:
            raise
        except (TimeoutError, DeadlineExceeded) as error:
            # The agent knows the deadline too, and may be the first to say that it passed; before it, it means another.
            if not limit.expired() and monotonic() - begin < 0.95 * seconds:
                raise
            raise DeadlineExceeded(f"The node took longer than its {seconds:g} s.", seconds=f"{seconds:g}") from error

    async def _kind_of_work(self, node: FlowNode, seconds: float) -> None:
        inbox, outbox = self._inboxes[node.id], self._outboxes[node.id]
        if is_constant(node) or node.type in SOURCES | SINKS:
            await self._started(node)
        if is_constant(node):
            for name, value in node.outputs.fields.items():
                await outbox.give(name, plain_value(outbox.pin(name), value))
        elif node.type in SOURCES:
            for pin in node.output_pins:
                if (node.id, pin.name) in self._inputs:
                    await outbox.give(pin.name, self._inputs[node.id, pin.name])
        elif node.type in SINKS:
            await show(node.id, inbox, self._journal)
        elif node.HasField("for_each"):
            await run_each(self._agents, node, inbox, outbox, before=self._attempts(node), seconds=seconds)
        elif await self._agents.run(node, inbox, outbox, before=self._attempts(node), seconds=seconds):
            self._cached.add(node.id)

    async def _started(self, node: FlowNode) -> None:
        started = execution_pb2.NodeStarted(agent_id=node.type, attempt=self._attempts(node) + 1)
        await self._journal.record(node.id, node_started=started)

    def _attempts(self, node: FlowNode) -> int:
        return self._recall.attempts(node.id) if self._recall is not None else 0

    def _seconds(self, node: FlowNode) -> float:
        return node.timeout.ToNanoseconds() / 1e9 if node.HasField("timeout") else self._timeout


def _inbox(node: FlowNode, flow: Flow, dangerous: set[tuple[str, str]], bounds: Bounds) -> Inbox:
    edges = Counter(target.pin for _, target in map(ends, flow.edges) if target.node_id == node.id)
    fed = [pin for pin in node.input_pins if pin.name in edges]
    return Inbox(
        values={pin.name: edges[pin.name] for pin in fed if pin.type != pin_pb2.PIN_TYPE_STREAM},
        optional=[pin.name for pin in fed if pin.optional],
        streams={pin.name: edges[pin.name] for pin in fed if pin.type == pin_pb2.PIN_TYPE_STREAM},
        hazardous=[pin.name for pin in fed if (node.id, pin.name) in dangerous],
        bounds=bounds,
    )


def _told(node: FlowNode, error: Exception | asyncio.CancelledError) -> MeshError:
    if isinstance(error, MeshError | asyncio.CancelledError):
        return failure_at(node, error)
    _LOG.exception("node %s failed", node.id, exc_info=error)
    trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
    return MeshError(f"The orchestrator failed; its log has the cause under trace {trace_id}.", trace_id=trace_id)


def _since(begin: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round((monotonic() - begin) * 1e9))
    return duration
