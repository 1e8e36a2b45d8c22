"""Edges with conditions: what comes is held until it is known whether they carry."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf import json_format

from mediamesh.api.agent.v1.pin_pb2 import PIN_TYPE_STREAM
from mediamesh.orchestrator.condition_source import parse
from mediamesh.orchestrator.conditions import Address, BadCondition, Expression, carries, references
from mediamesh.orchestrator.pins import converted, misfit
from mediamesh.orchestrator.wiring import ends
from mediamesh.wire.errors import InvalidFlow
from mediamesh.wire.plain_values import plain_of

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowEdge
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk
    from mediamesh.orchestrator.execution.inbox import Inbox
    from mediamesh.wire.errors import MeshError

__all__ = ["Gate", "Target", "Targets", "targets_of"]


class Target(Protocol):
    """What is at the other end of an output pin; `Inbox` says what the methods mean."""

    def deliver(self, pin: str, value: Value) -> None:
        """A value has come."""

    def refuse(self, error: MeshError) -> None:
        """A value has come that does not fit."""

    async def put(self, pin: str, chunk: Chunk) -> None:
        """A chunk has come; waits while it has no room."""

    async def end(self, pin: str) -> None:
        """The producer has no more chunks."""

    def without(self, pin: str, cause: str) -> None:
        """The producer is done and gave nothing."""

    async def withhold(self, pin: str, cause: str) -> None:
        """A condition keeps everything back."""

    async def lose(self, pin: str, cause: str) -> None:
        """The producer failed."""


# What is to get the values and chunks of each output pin, and the pin where they go in.
Targets = Mapping[Address, list[tuple[Target, "Pin"]]]


def targets_of(flow: Flow, inboxes: Mapping[str, Inbox]) -> Targets:
    """Return where everything goes that leaves a pin: into inboxes, and to the conditions that look at it."""
    ids = {node.id for node in flow.nodes}
    inputs = {(node.id, pin.name): pin for node in flow.nodes for pin in node.input_pins}
    outputs = {(node.id, pin.name): pin for node in flow.nodes for pin in node.output_pins}
    found: dict[Address, list[tuple[Target, Pin]]] = defaultdict(list)
    for edge in flow.edges:
        source, target = ends(edge)
        start, pin = (source.node_id, source.pin), inputs[target.node_id, target.pin]
        inbox = inboxes[target.node_id]
        if not edge.when:
            found[start].append((inbox, pin))
            continue
        gate = Gate(edge, parse(edge.when, ids), inbox, pin)
        # What the gate takes is what left: it is held to the pin behind the gate once that has opened.
        found[start].append((gate, outputs[start]))
        for address in gate.watched:
            found[address].append((_Watcher(gate, address), outputs[address]))
    return found


class Gate:
    """The target of an edge that has a condition.

    Attributes:
        watched: The pins that the condition refers to.

    Args:
        edge: The edge.
        expression: Its condition.
        inbox: Where it leads.
        pin: The pin there.
    """

    def __init__(self, edge: FlowEdge, expression: Expression, inbox: Inbox, pin: Pin) -> None:
        self._needed = {found.address for found in references(expression)}
        self.watched: Collection[Address] = {address for address in self._needed if address is not None}
        self._expression, self._text = expression, edge.when
        self._source_id = ends(edge)[0].node_id
        self._inbox, self._pin = inbox, pin
        self._streams = pin.type == PIN_TYPE_STREAM
        self._known: dict[Address | None, Any] = {}
        self._held: Value | None = None
        self._carries: bool | None = None
        self._decided = asyncio.Event()
        self._over = False

    def deliver(self, pin: str, value: Value) -> None:
        """Hold a value until it is known whether it goes on."""
        self._held = value
        self.know(None, _plain(value))

    def refuse(self, error: MeshError) -> None:
        """Say behind the gate that what came does not fit."""
        self._inbox.refuse(error)

    async def put(self, pin: str, chunk: Chunk) -> None:
        """Wait until it is known whether chunks go on; drop them where they do not."""
        await self._decided.wait()
        if self._carries:
            await self._inbox.put(self._pin.name, chunk)

    async def end(self, pin: str) -> None:
        """End the stream behind the gate, or say that there is none."""
        await self._decided.wait()
        if not self._is_first():
            return
        if self._carries:
            await self._inbox.end(self._pin.name)
        else:
            await self._inbox.withhold(self._pin.name, self._source_id)

    def without(self, pin: str, cause: str) -> None:
        """Say behind the gate that nothing comes."""
        if self._is_first():
            self._inbox.without(self._pin.name, cause)

    async def withhold(self, pin: str, cause: str) -> None:
        """Say behind the gate that another condition keeps everything back."""
        if self._is_first():
            await self._inbox.withhold(self._pin.name, cause)

    async def lose(self, pin: str, cause: str) -> None:
        """Say behind the gate that the producer failed, unless nothing of it would have gone on."""
        if not self._is_first():
            return
        if self._carries is False:
            await self._inbox.withhold(self._pin.name, cause)
        else:
            await self._inbox.lose(self._pin.name, cause)

    def know(self, address: Address | None, plain: Any) -> None:
        """Take note of a value that the condition may look at; decide once all of them are there."""
        self._known[address] = plain
        if self._carries is None and self._needed <= self._known.keys():
            self._decide()
        if self._carries and self._held is not None:
            held, self._held = self._held, None
            self._hand_on(held)

    async def miss(self, cause: str) -> None:
        """What the condition looks at will never come, as its node failed."""
        if self._carries is None:
            self._carries = False
            self._decided.set()
            if self._is_first():
                await self._inbox.lose(self._pin.name, cause)

    def _is_first(self) -> bool:
        """Return whether the node behind the gate does not know yet how this edge ended: it counts its edges."""
        first, self._over = not self._over, True
        return first

    def _decide(self) -> None:
        try:
            self._carries = carries(self._expression, self._known)
        except BadCondition as error:
            self._carries = False
            self._inbox.refuse(InvalidFlow(f"The condition `{self._text}` of `{self._pin.name}` {error}."))
        self._decided.set()
        if not self._carries and not self._streams and self._is_first():
            self._inbox.settle(self._pin.name, self._source_id, by_condition=True)

    def _hand_on(self, value: Value) -> None:
        if not self._is_first():
            return
        going = converted(value, self._pin)
        if problem := misfit(going, self._pin):
            text = f"What `{self._source_id}` gave does not fit `{self._pin.name}`: {problem.text}."
            self._inbox.refuse(type(problem)(text, pin=self._pin.name))
        else:
            self._inbox.deliver(self._pin.name, going)


class _Watcher:
    """Tells a gate what leaves a pin that its condition refers to."""

    def __init__(self, gate: Gate, address: Address) -> None:
        self._gate, self._address = gate, address

    def deliver(self, pin: str, value: Value) -> None:
        self._gate.know(self._address, _plain(value))

    def refuse(self, error: MeshError) -> None:
        pass

    async def put(self, pin: str, chunk: Chunk) -> None:
        pass

    async def end(self, pin: str) -> None:
        pass

    def without(self, pin: str, cause: str) -> None:
        self._gate.know(self._address, None)

    async def withhold(self, pin: str, cause: str) -> None:
        self._gate.know(self._address, None)

    async def lose(self, pin: str, cause: str) -> None:
        await self._gate.miss(cause)


def _plain(value: Value) -> Any:
    """Return a value as conditions see it; of media its facts, with their names in JSON, and its ``size``."""
    match value.WhichOneof("kind"):
        case "json":
            return plain_of(value.json)
        case "media":
            facts = json_format.MessageToDict(value.media.ref.metadata)
            return {**facts, "size": value.media.ref.size_bytes}
        case "text" | "number" | "boolean" as kind:
            return getattr(value, kind)
    return None
