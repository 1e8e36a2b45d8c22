"""What happens in a run, numbered and stored in batches while it goes on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent, ExecutionState
from mediamesh.orchestrator.runlog import RunLog
from mediamesh.orchestrator.runlog.parts import parts_of
from mediamesh.orchestrator.runlog.ports import Batch
from mediamesh.orchestrator.state import apply, closing_events
from mediamesh.wire.errors import AgentFailed, MeshError

__all__ = ["Journal", "LogBounds"]

_QUEUE, _QUEUE_BYTES = 64, 4 * 1024 * 1024
_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """How much a log may hold: the size of one event, and the number and the bytes of all; the oldest go first."""

    event_bytes: int
    events: int
    bytes: int


class Journal:
    """Takes the events of one run from many tasks, and writes them from one.

    Attributes:
        execution: The run as it stands after all that was written.

    Args:
        log: Where to write.
        execution: The run as it stands.
        bounds: How much its log may hold.
        fence: Which holder of the run this is.
        sizes: Bytes of each event that is in the log already.
    """

    def __init__(
        self, log: RunLog, execution: Execution, bounds: LogBounds, *, fence: int = 0, sizes: Iterable[int] = ()
    ) -> None:
        self.execution = execution
        self._fence = fence
        self._log = log
        self._bounds = bounds
        self._nodes = {node.node_id: node for node in execution.nodes}
        self._queue: asyncio.Queue[ExecutionEvent] = asyncio.Queue(_QUEUE)
        self._queued_bytes = 0
        self._has_room = asyncio.Event()
        self._sizes: deque[int] = deque(sizes)
        self._bytes = sum(self._sizes)

    @property
    def event_bytes(self) -> int:
        """Most bytes that an event may have."""
        return self._bounds.event_bytes

    async def record(self, node_id: str = "", **event: Any) -> None:
        """Take note of an event; waits while the log is behind.

        Args:
            node_id: The node that it concerns, if it is one.
            event: The arm of `ExecutionEvent` and its message.

        Raises:
            AgentFailed: the event is too large.
        """
        made = ExecutionEvent(execution_id=self.execution.execution_id, node_id=node_id, **event)
        made.time.GetCurrentTime()
        if (size := made.ByteSize()) > self._bounds.event_bytes:
            raise AgentFailed(
                f"An output of {size} bytes does not fit an event, which has {self._bounds.event_bytes} at most.",
                limit=self._bounds.event_bytes,
            )
        while self._queued_bytes >= _QUEUE_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        self._queued_bytes += size
        try:
            await self._queue.put(made)
        except asyncio.CancelledError:
            self._free(size)
            raise

    async def write(self) -> None:
        """Store what is recorded, until cancelled.

        Raises:
            Fenced: the run is not ours any more.
            Unavailable: the log cannot be reached.
        """
        while True:
            batch = [await self._queue.get()]
            size = batch[0].ByteSize()
            while size < _BATCH_BYTES and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                size += batch[-1].ByteSize()
            await self._append(batch)
            self._free(size)
            for _ in batch:
                self._queue.task_done()

    def _free(self, size: int) -> None:
        self._queued_bytes -= size
        self._has_room.set()

    async def flush(self) -> None:
        """Wait until all that was recorded is stored."""
        await self._queue.join()

    async def end(self, state: ExecutionState.ValueType, error: MeshError | None) -> None:
        """Store the events that end the run, after all that were recorded."""
        await self.flush()
        await self._append(list(closing_events(self.execution, state, error)), ended=True)

    async def _append(self, events: list[ExecutionEvent], *, ended: bool = False) -> None:
        changed: set[str] = set()
        for number, event in enumerate(events, self.execution.last_sequence + 1):
            event.sequence = number
            if apply(self.execution, self._nodes, event):
                changed.add(event.node_id)
            self._sizes.append(event.ByteSize())
            self._bytes += self._sizes[-1]
        while len(self._sizes) > self._bounds.events or (self._bytes > self._bounds.bytes and len(self._sizes) > 1):
            self._bytes -= self._sizes.popleft()
        floor = self.execution.last_sequence - len(self._sizes) + 1
        parts = parts_of(self.execution, changed, head=ended) if changed else {}
        await self._log.append(
            Batch(
                execution_id=self.execution.execution_id,
                events=events,
                changed=parts,
                floor=floor,
                ended=ended,
                fence=self._fence,
            )
        )
