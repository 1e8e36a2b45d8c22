"""What leaves a node: checked against its pins, recorded, and sent along its edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import agent_service_pb2, pin_pb2, value_pb2
from mediamesh.api.agent.v1.agent_service_pb2 import RunResponse
from mediamesh.orchestrator.pins import converted, misfit
from mediamesh.wire.errors import AgentFailed
from mediamesh.wire.pins import type_name

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk
    from mediamesh.orchestrator.execution.broadcast import Broadcast
    from mediamesh.orchestrator.execution.gates import Targets
    from mediamesh.orchestrator.execution.journal import Journal

__all__ = ["Capture", "Outbox"]


class Capture:
    """What left a node, as long as it is not too much.

    Attributes:
        frames: Values and chunks, in order; None when they were more than the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self.frames: list[RunResponse] | None = []
        self._left = max_bytes

    def add(self, frame: RunResponse) -> None:
        """Note what leaves."""
        self._left -= frame.ByteSize()
        if self._left < 0:
            self.frames = None
        if self.frames is not None:
            self.frames.append(frame)


class Outbox:
    """The output pins of one node in one run.

    Args:
        node: The node.
        targets: Where everything goes that leaves a pin.
        journal: Told of everything that leaves.
        broadcast: Where streams are published.
        told: What the node gave by pin when an orchestrator ran it that is gone; a value that others may have acted on
            stays, whatever the node gives this time.
    """

    def __init__(
        self,
        node: FlowNode,
        targets: Targets,
        journal: Journal,
        broadcast: Broadcast,
        *,
        told: Mapping[str, value_pb2.Value] | None = None,
    ) -> None:
        self._node = node
        self._told = told or {}
        self._journal = journal
        self._broadcast = broadcast
        self._pins = {pin.name: pin for pin in node.output_pins}
        self._done: set[str] = set()
        self._counts: dict[str, int] = defaultdict(int)
        self._captured: Capture | None = None
        self._targets = {name: [*targets.get((node.id, name), [])] for name in self._pins}

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
        self._note(RunResponse(output=agent_service_pb2.PinValue(pin=name, value=value)))
        await self._tell(name, self._told.get(name, value))

    async def _tell(self, name: str, value: value_pb2.Value) -> None:
        await self._journal.record(self._node.id, node_output=agent_service_pb2.PinValue(pin=name, value=value))
        # A value that is not recorded did not leave: its readers are told with the node's failure.
        self._done.add(name)
        self._deliver(name, value)

    def capture(self, max_bytes: int) -> Capture:
        """Note from now on what leaves the node, for `repeat`."""
        self._captured = Capture(max_bytes)
        return self._captured

    def _note(self, frame: RunResponse) -> None:
        if self._captured is not None:
            self._captured.add(frame)

    async def repeat(self, frames: Iterable[RunResponse]) -> None:
        """Send what left the node another time, when it had the same inputs."""
        for frame in frames:
            if frame.HasField("output"):
                await self.give(frame.output.pin, frame.output.value)
            else:
                await self.stream(frame.chunk.pin, frame.chunk.chunk)
        await self.finish()

    def recall(self, name: str, value: value_pb2.Value) -> None:
        """Send a value that was sent and recorded before this orchestrator took the run over."""
        self._done.add(name)
        self._deliver(name, value)

    def _deliver(self, name: str, value: value_pb2.Value) -> None:
        """Hand a value on; where it does not fit the next pin the node there fails, as this one kept its word."""
        for inbox, target in self._targets[name]:
            going = converted(value, target)
            if problem := misfit(going, target):
                text = f"What `{self._node.id}` gave on `{name}` does not fit `{target.name}`: {problem.text}."
                inbox.refuse(type(problem)(text, pin=target.name))
            else:
                inbox.deliver(target.name, going)

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
        given = agent_service_pb2.PinChunk(pin=name, chunk=chunk)
        self._note(RunResponse(chunk=given))
        await self._journal.record(self._node.id, node_chunk=given)
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
        await self._broadcast.end(self._node.id, name)
        waiting = self._targets[name]
        while waiting:
            inbox, target = waiting[0]
            await inbox.end(target.name)
            # If the node is stopped while another one keeps it waiting, this one has its end.
            del waiting[0]
        self._done.add(name)

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
            elif name in self._told:
                await self._tell(name, self._told[name])
            elif not pin.optional and self._targets[name]:
                raise AgentFailed(f"The agent finished without a value on `{name}`.", pin=name)
            else:
                self._done.add(name)
                for inbox, target in self._targets[name]:
                    inbox.without(target.name, self._node.id)

    async def withhold(self, cause: str) -> None:
        """Tell all who wait for something that a condition keeps it back."""
        for name, targets in self._targets.items():
            if name not in self._done:
                for inbox, target in targets:
                    await inbox.withhold(target.name, cause)

    async def lose(self, cause: str) -> None:
        """Tell all who wait for something that did not come that it will not."""
        for name, targets in self._targets.items():
            if name not in self._done:
                for inbox, target in targets:
                    await inbox.lose(target.name, cause)
