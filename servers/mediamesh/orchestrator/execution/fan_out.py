"""A node that runs its agent once for each element of a list, some of them at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.api.stream.v1.chunk_pb2 import Progress
from mediamesh.orchestrator.element_values import element_of, value_of_element
from mediamesh.orchestrator.execution.broadcast import Broadcast
from mediamesh.orchestrator.execution.inbox import Inbox
from mediamesh.orchestrator.execution.journal import Journal
from mediamesh.orchestrator.execution.outbox import Outbox
from mediamesh.orchestrator.pins import misfit
from mediamesh.wire.errors import AgentFailed, InvalidRequest, MeshError, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.orchestrator.execution.agent_node import AgentNodes

__all__ = ["run_each"]

_LOG = logging.getLogger(__name__)
_PARALLEL = 4
_MAX_ELEMENTS = 4096
# Of each element: the values that its run gave, by pin; None where it failed.
Results = list[dict[str, struct_pb2.Value] | None]


async def run_each(
    agents: AgentNodes, node: FlowNode, inbox: Inbox, outbox: Outbox, *, before: int, seconds: float
) -> None:
    """Run a node over its list to the end.

    Args:
        agents: Runs the agent.
        node: The node.
        inbox: Its inputs, the list among them.
        outbox: Its outputs, each the list of what the elements gave.
        before: How often the node was tried already, by an orchestrator that is gone.
        seconds: How long all of it may take.

    Raises:
        InvalidRequest: what came is no list, or too long, or an element does not fit the pin.
        MeshError: an element failed, where the flow does not say that others go on.
    """
    started = execution_pb2.NodeStarted(agent_id=node.type, attempt=before + 1)
    await agents.journal.record(node.id, node_started=started)
    manifest = agents.agents.agents().get(node.type)
    if manifest is None:
        raise Unavailable(f"No agent server runs `{node.type}` now.")
    elements = _elements(inbox, node.for_each.pin)
    results = await _FanOut(agents, node, manifest, inbox, before=before, seconds=seconds).run(elements)
    if node.for_each.on_error == flow_pb2.ELEMENT_FAILURE_DROP:
        results = [result for result in results if result is not None]
    nothing = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    for pin in node.output_pins:
        entries = [(result or {}).get(pin.name, nothing) for result in results]
        given = struct_pb2.Value(list_value=struct_pb2.ListValue(values=entries))
        await outbox.give(pin.name, value_pb2.Value(json=given))
    await outbox.finish()


def _elements(inbox: Inbox, pin: str) -> list[struct_pb2.Value]:
    given = inbox.values[pin].json
    if not given.HasField("list_value"):
        raise InvalidRequest.of_field(f"inputs.{pin}", "must be a list, as the node runs for each of its elements")
    elements = list(given.list_value.values)
    if len(elements) > _MAX_ELEMENTS:
        raise InvalidRequest.of_field(
            f"inputs.{pin}", f"must have at most {_MAX_ELEMENTS} elements, has {len(elements)}", limit=_MAX_ELEMENTS
        )
    return elements


class _FanOut:
    def __init__(
        self, agents: AgentNodes, node: FlowNode, manifest: Manifest, inbox: Inbox, *, before: int, seconds: float
    ) -> None:
        self._agents = agents
        self._pin = next(pin for pin in manifest.inputs if pin.name == node.for_each.pin)
        self._node_id, self._for_each = node.id, node.for_each
        self._inbox = inbox
        self._before = before
        self._end = monotonic() + seconds
        self._node = flow_pb2.FlowNode()
        self._node.CopyFrom(node)
        self._node.ClearField("for_each")
        del self._node.output_pins[:]
        self._node.output_pins.extend(manifest.outputs)

    async def run(self, elements: list[struct_pb2.Value]) -> Results:
        """Run the agent over the elements; the results are in their order."""
        results: Results = [None] * len(elements)
        waiting, done, size = iter(enumerate(elements)), 0, 0

        async def work() -> None:
            nonlocal done, size
            for index, element in waiting:
                result = results[index] = await self._result(index, element)
                size += sum(value.ByteSize() for value in (result or {}).values())
                if size > self._agents.journal.event_bytes:
                    raise AgentFailed(f"What the elements gave has more than {self._agents.journal.event_bytes} bytes.")
                done += 1
                await self._progress(100 * done / len(elements), f"{done} of {len(elements)}")

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._for_each.parallel or _PARALLEL, len(elements))):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        return results

    async def _result(self, index: int, element: struct_pb2.Value) -> dict[str, struct_pb2.Value] | None:
        try:
            return await self._one(element)
        except MeshError as error:
            if self._for_each.on_error not in {flow_pb2.ELEMENT_FAILURE_KEEP, flow_pb2.ELEMENT_FAILURE_DROP}:
                raise _of_element(index, error) from error
            _LOG.info("element %d of the node %s failed: %s", index, self._node_id, error.text)
            await self._progress(0, f"element {index} failed: {error.text}"[:1024])
            return None

    async def _one(self, element: struct_pb2.Value) -> dict[str, struct_pb2.Value]:
        value = await self._agents.media.known(value_of_element(self._pin, element))
        if problem := misfit(value, self._pin):
            raise type(problem).of_field(f"inputs.{self._pin.name}", problem.text)
        inbox = Inbox(values={}, optional=(), streams={}, hazardous=(), bounds=self._agents.bounds)
        inbox.values.update(self._inbox.values)
        inbox.values[self._pin.name] = value
        notes = _Notes(self._agents.journal)
        unheard = Broadcast(
            None, notes, bounds=self._agents.bounds, patience_seconds=0, later=lambda work: work.close()
        )
        agents = replace(self._agents, journal=notes, broadcast=unheard)
        outbox = Outbox(self._node, {}, notes, unheard)
        await agents.run(self._node, inbox, outbox, before=self._before, seconds=self._end - monotonic())
        return notes.given

    async def _progress(self, percent: float, message: str) -> None:
        progress = Progress(percent=percent, message=message)
        await self._agents.journal.record(self._node_id, node_progress=progress)


class _Notes(Journal):
    """The journal of one element: what it gives is gathered, what it costs and why it is tried again goes on.

    Attributes:
        given: What came, by pin.
    """

    def __init__(self, whole: Journal) -> None:
        self.execution = whole.execution
        self.given: dict[str, struct_pb2.Value] = {}
        self._whole = whole

    async def record(self, node_id: str = "", **event: Any) -> None:
        """Take note of an event."""
        if (output := event.get("node_output")) is not None:
            self.given[output.pin] = element_of(output.value)
        for kind in event.keys() & {"cost", "node_retry"}:
            await self._whole.record(node_id, **{kind: event[kind]})


def _of_element(index: int, error: MeshError) -> MeshError:
    """Return an error that names the element; its class stays."""
    told = type(error).from_status(error.to_status())
    told.text = f"Element {index}: {error.text}"
    return told
