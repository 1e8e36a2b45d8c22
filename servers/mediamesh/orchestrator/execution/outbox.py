"""What leaves a node: checked against its pins, recorded, and sent along its edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import agent_service_pb2, pin_pb2, value_pb2
from mediamesh.orchestrator.execution.broadcast import Broadcast
from mediamesh.orchestrator.execution.inbox import Inbox
from mediamesh.orchestrator.execution.journal import Journal
from mediamesh.orchestrator.pins import converted, misfit
from mediamesh.orchestrator.wiring import ends
from mediamesh.wire.errors import AgentFailed
from mediamesh.wire.pins import type_name

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowNode
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Outbox"]


class Outbox:
    """The output pins of one node in one run."""

    def __init__(
        self, node: FlowNode, flow: Flow, inboxes: Mapping[str, Inbox], journal: Journal, broadcast: Broadcast
    ) -> None:
        self._node = node
        self._journal = journal
        self._broadcast = broadcast
        self._pins = {pin.name: pin for pin in node.output_pins}
        self._done: set[str] = set()
        self._counts: dict[str, int] = defaultdict(int)
        types = {(target.id, pin.name): pin for target in flow.nodes for pin in target.input_pins}
        self._targets: dict[str, list[tuple[Inbox, Pin]]] = defaultdict(list)
        for edge in flow.edges:
            source, target = ends(edge)
            if source.node_id == node.id:
                pin = types[target.node_id, target.pin]
                self._targets[source.pin].append((inboxes[target.node_id], pin))

    @property
    def is_empty(self) -> bool:
        """Whether nothing has left the node yet."""
        return not self._done and not self._counts

    def pin(self, name: str) -> Pin:
        """Return an output pin.

        Raises:
            AgentFailed: the agent has none of this name.
        """
        if name not in self._pins:
            raise AgentFailed(f"The agent gave something on `{name}`, which is not one of its output pins.", pin=name)
        return self._pins[name]

    async def give(self, name: str, value: value_pb2.Value) -> None:
        """Send a single value.

        Raises:
            AgentFailed: the pin is not there, was used before, streams, or takes no such value.
        """
        pin = self.pin(name)
        if pin.type == pin_pb2.PIN_TYPE_STREAM:
            raise AgentFailed(f"The agent gave a single value on `{name}`, which streams.", pin=name)
        if name in self._done:
            raise AgentFailed(f"The agent gave a second value on `{name}`.", pin=name)
        value = converted(value, pin)
        if problem := misfit(value, pin):
            raise AgentFailed(f"The agent gave a value that does not fit: `{name}` {problem.text}.", pin=name)
        self._done.add(name)
        await self._journal.record(self._node.id, node_output=agent_service_pb2.PinValue(pin=name, value=value))
        self._deliver(name, value)

    def recall(self, name: str, value: value_pb2.Value) -> None:
        """Send a value that was sent and recorded before this orchestrator took the run over."""
        self._done.add(name)
        self._deliver(name, value)

    def _deliver(self, name: str, value: value_pb2.Value) -> None:
        for inbox, target in self._targets[name]:
            if problem := misfit(converted(value, target), target):
                raise AgentFailed(
                    f"What the agent gave on `{name}` does not fit the pin after it: `{target.name}` {problem.text}.",
                    pin=name,
                )
            inbox.deliver(target.name, converted(value, target))

    async def stream(self, name: str, chunk: Chunk) -> None:
        """Send a chunk; waits while a reader of it is behind.

        Raises:
            AgentFailed: the pin is not there, does not stream, has ended, or the chunk is not the next one.
        """
        pin = self.pin(name)
        if pin.type != pin_pb2.PIN_TYPE_STREAM:
            raise AgentFailed(f"The agent streamed on `{name}`, which is {type_name(pin.type)}.", pin=name)
        if name in self._done:
            raise AgentFailed(f"The agent streamed on `{name}` after its end.", pin=name)
        if chunk.sequence_number != self._counts[name] + 1:
            raise AgentFailed(
                f"The agent streamed chunk {chunk.sequence_number} on `{name}` where {self._counts[name] + 1} is next.",
                pin=name,
            )
        self._counts[name] += 1
        await self._journal.record(self._node.id, node_chunk=agent_service_pb2.PinChunk(pin=name, chunk=chunk))
        await self.restream(name, chunk)

    async def restream(self, name: str, chunk: Chunk) -> None:
        """Send a chunk that is recorded; waits while a reader of it is behind."""
        await self._broadcast.put(self._node.id, name, chunk)
        for inbox, target in self._targets[name]:
            await inbox.put(target.name, chunk)

    async def end(self, name: str) -> None:
        """End a stream pin.

        Raises:
            AgentFailed: the pin is not there, does not stream, or has ended.
        """
        if self.pin(name).type != pin_pb2.PIN_TYPE_STREAM or name in self._done:
            raise AgentFailed(f"The agent ended `{name}`, which does not stream or has ended.", pin=name)
        self._done.add(name)
        await self._broadcast.end(self._node.id, name)
        for inbox, target in self._targets[name]:
            await inbox.end(target.name)

    async def finish(self) -> None:
        """Settle what is open: streams end, and single values that did not come are missed.

        Raises:
            AgentFailed: a value that the agent owes did not come.
        """
        for name, pin in self._pins.items():
            if name in self._done:
                continue
            if pin.type == pin_pb2.PIN_TYPE_STREAM:
                await self.end(name)
            elif not pin.optional and self._targets[name]:
                raise AgentFailed(f"The agent finished without a value on `{name}`.", pin=name)
            else:
                for inbox, target in self._targets[name]:
                    inbox.without(target.name, self._node.id)

    async def lose(self, cause: str) -> None:
        """Tell all who wait for something that did not come that it will not."""
        for name, targets in self._targets.items():
            if name not in self._done:
                for inbox, target in targets:
                    await inbox.lose(target.name, cause)
