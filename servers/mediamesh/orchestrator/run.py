"""One run from its first event to its last."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionState
from mediamesh.orchestrator.cancellation import account
from mediamesh.wire.errors import DeadlineExceeded, MeshError

if TYPE_CHECKING:
    from mediamesh.orchestrator.cancellation import Durations
    from mediamesh.orchestrator.execution import Broadcast, Graph, Journal

__all__ = ["Run"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.orchestrator")
_EXECUTIONS = _METER.create_counter("mediamesh_flow_executions", description="Runs that ended, by how.")
_RUNNING = _METER.create_up_down_counter("mediamesh_flow_executions_running", description="Runs that go on.")
_SECONDS = _METER.create_histogram("mediamesh_flow_execution_duration", unit="s", description="How long runs took.")


class Run:
    """A graph at work and its journal.

    Attributes:
        over: Set when nothing of the run is left.
        fence: Which holder of the run this is.
        has_ended: Whether the last event of the run is in the log.
        handed_over: Whether it was stopped for another orchestrator to go on with it.

    Args:
        graph: What to run.
        journal: Of an execution that is stored.
        broadcast: Where its stream pins are published.
        timeout: How much longer the run may take, in seconds.
        limit: How long it may take in all, in seconds.
        durations: How long agents take, to tell what cancelling saves.
        fence: Which holder of the run this is.
    """

    def __init__(
        self,
        graph: Graph,
        journal: Journal,
        broadcast: Broadcast,
        *,
        timeout: float,
        limit: float,
        durations: Durations,
        fence: int = 0,
    ) -> None:
        self.over = asyncio.Event()
        self.fence = fence
        self.has_ended = False
        self.handed_over = False
        self._graph = graph
        self._journal = journal
        self._broadcast = broadcast
        self._timeout = timeout
        self._limit = limit
        self._durations = durations
        self._work: asyncio.Task[bool] | None = None
        self._verdict: tuple[ExecutionState.ValueType, MeshError] | None = None

    @property
    def execution_id(self) -> str:
        """Id of the execution."""
        return self._journal.execution.execution_id

    def stop(self, state: ExecutionState.ValueType, error: MeshError) -> None:
        """End the run in this state unless it has ended by itself; the first reason is the one that is told."""
        if self._verdict is None:
            self._verdict = (state, error)
            if self._work is not None:
                self._work.cancel()

    def hand_over(self, error: MeshError) -> None:
        """Stop, and leave the run as it is for another orchestrator, unless it has ended by itself or was stopped."""
        if self._verdict is None:
            self.handed_over = True
            self.stop(execution_pb2.EXECUTION_STATE_RUNNING, error)

    async def drive(self) -> None:
        """Run to the end, whatever the end is.

        Raises:
            ExceptionGroup: the log failed, or is not ours any more.
        """
        begin = monotonic()
        _RUNNING.add(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._journal.write())
                await self._say_that_it_begins()
                async with self._broadcast:
                    verdict = await self._worked(tasks)
                    await self._broadcast.close(verdict[1])
                await self._last_words(*verdict)
                writing.cancel()
        finally:
            _RUNNING.add(-1)
            state = ExecutionState.Name(self._journal.execution.state).removeprefix("EXECUTION_STATE_").lower()
            _EXECUTIONS.add(1, {"state": state})
            _SECONDS.record(monotonic() - begin, {"state": state})
            self.over.set()

    async def _say_that_it_begins(self) -> None:
        execution = self._journal.execution
        if not execution.last_sequence:
            started = execution_pb2.ExecutionStarted(flow=execution.flow, workspace_id=execution.workspace_id)
            await self._journal.record(execution_started=started)

    async def _last_words(self, state: ExecutionState.ValueType, error: MeshError | None) -> None:
        # A run may end by itself just when it is handed over.
        self.handed_over = state == execution_pb2.EXECUTION_STATE_RUNNING
        if self.handed_over:
            await self._journal.flush()
        else:
            await self._journal.end(state, error)
            self.has_ended = True
            account(self._journal.execution, self._durations)

    async def _worked(self, tasks: asyncio.TaskGroup) -> tuple[ExecutionState.ValueType, MeshError | None]:
        work = self._work = tasks.create_task(self._graph.run())
        if self._verdict is not None:
            work.cancel()
        await asyncio.wait({work}, timeout=self._timeout)
        if not work.done():
            error = DeadlineExceeded(f"The run took longer than its {self._limit:g} s.")
            self.stop(execution_pb2.EXECUTION_STATE_FAILED, error)
            await asyncio.wait({work})
        if work.cancelled() and self._verdict is not None:
            return self._verdict
        succeeded = not work.cancelled() and work.result()
        return (execution_pb2.EXECUTION_STATE_SUCCEEDED if succeeded else execution_pb2.EXECUTION_STATE_FAILED), None
