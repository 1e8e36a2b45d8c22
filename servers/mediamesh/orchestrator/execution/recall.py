"""What nodes gave before another orchestrator took over: it is in the log, and what has ended is not made again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Protocol

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.orchestrator.state import node_has_ended
from mediamesh.orchestrator.wiring import ends
from mediamesh.wire.errors import OutOfRange

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent, NodeExecution
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.orchestrator.execution.outbox import Outbox

__all__ = ["Events", "Recall"]

_PAGE = 32


class Events(Protocol):
    """Where past events are; `mediamesh.orchestrator.runlog.RunLog` is one."""

    async def read(self, execution_id: str, after: int, limit: int) -> list[ExecutionEvent]:
        """Return the events after a sequence that are still there, ``limit`` at most."""
        ...


class Recall:
    """The past of a run: what its nodes gave, for nodes that go on from it.

    Values are in the execution. Chunks are read from the log page by page while their readers take them, for each node
    by itself: a page in common could hold a chunk that one reader has no room for before one that another waits for.

    Args:
        events: The log.
        execution: The run as it was left.
    """

    def __init__(self, events: Events, execution: Execution) -> None:
        self._events = events
        self._execution_id = execution.execution_id
        self._nodes = {node.node_id: node for node in execution.nodes}
        self._flow = execution.flow
        self._ended = {node.node_id for node in execution.nodes if node_has_ended(node)}
        self._told: dict[str, dict[str, Value]] = {}

    def learn(self, event: ExecutionEvent) -> None:
        """Take note of an event of the past; all of them have to come, in order, before the run goes on.

        What a node gave that has not ended is in no place but its events.
        """
        if event.HasField("node_output") and event.node_id not in self._ended:
            self._told.setdefault(event.node_id, {}).setdefault(event.node_output.pin, event.node_output.value)

    def told(self, node_id: str) -> Mapping[str, Value]:
        """Return the values by pin that a node gave that had not ended: others may have acted on them."""
        return self._told.get(node_id, {})

    def has(self, node_id: str) -> bool:
        """Return whether a node had ended."""
        return node_id in self._ended

    def attempts(self, node_id: str) -> int:
        """Return how often a node was tried."""
        return self._nodes[node_id].attempt

    def failed(self, node_id: str) -> bool:
        """Return whether a node that had ended counts as a failure of its run."""
        node = self._nodes[node_id]
        skipped = node.state == execution_pb2.NODE_STATE_SKIPPED and not node.skipped.by_condition
        return skipped or node.state == execution_pb2.NODE_STATE_FAILED

    def unpublished(self, node: FlowNode) -> list[str]:
        """Return the stream pins of a node whose streams did not come to their end, though the node did."""
        known = self._nodes[node.id]
        if known.state != execution_pb2.NODE_STATE_SUCCEEDED:
            return []
        return [stream.pin for stream in known.streams if not stream.complete]

    def first_needed(self) -> int | None:
        """Return the sequence after which the log must be whole; None where no event of the past is needed."""
        return min(
            (self._nodes[node.id].start_sequence for node in self._flow.nodes if self._streams(node)), default=None
        )

    async def give(self, node: FlowNode, outbox: Outbox) -> None:
        """Send on what an ended node gave, and its end.

        Raises:
            OutOfRange: the log has lost some of it.
        """
        known = self._nodes[node.id]
        # What the client's ends show is recorded as theirs too, and leads nowhere.
        for pin in node.output_pins:
            if pin.name in known.outputs:
                outbox.recall(pin.name, known.outputs[pin.name])
        if self._streams(node):
            async for chunk in self._chunks(known):
                await outbox.restream(chunk.pin, chunk.chunk)
        if known.state == execution_pb2.NODE_STATE_SUCCEEDED:
            await outbox.finish()
        elif known.skipped.by_condition:
            await outbox.withhold(known.skipped.cause_node_id)
        else:
            await outbox.lose(known.skipped.cause_node_id or node.id)

    def _streams(self, node: FlowNode) -> bool:
        """Return whether anybody still needs chunks of a node that had ended."""
        if node.id not in self._ended or not self._nodes[node.id].start_sequence:
            return False
        pins = {pin.name for pin in node.output_pins if pin.type == pin_pb2.PIN_TYPE_STREAM}
        read = any(
            source.node_id == node.id and source.pin in pins and target.node_id not in self._ended
            for source, target in map(ends, self._flow.edges)
        )
        return read or bool(self.unpublished(node))

    async def _chunks(self, node: NodeExecution) -> AsyncIterator[PinChunk]:
        position = node.start_sequence
        while True:
            page = await self._events.read(self._execution_id, position, _PAGE)
            if not page or page[0].sequence != position + 1:
                raise OutOfRange(f"The log of the run has lost what the node `{node.node_id}` gave.")
            for event in page:
                if event.node_id == node.node_id:
                    if event.HasField("node_chunk"):
                        yield event.node_chunk
                    elif event.WhichOneof("event") in {"node_finished", "node_failed"}:
                        return
            position = page[-1].sequence
