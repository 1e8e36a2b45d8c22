"""One run from its first event to its last."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionState
from mediamesh.wire.errors import DeadlineExceeded, MeshError

if TYPE_CHECKING:
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

    Args:
        graph: What to run.
        journal: Of an execution that is stored.
        broadcast: Where its stream pins are published.
        timeout: Longest the run may take, in seconds.
    """

    def __init__(self, graph: Graph, journal: Journal, broadcast: Broadcast, *, timeout: float) -> None:
        self.over = asyncio.Event()
        self._graph = graph
        self._journal = journal
        self._broadcast = broadcast
        self._timeout = timeout
        self._work: asyncio.Task[bool] | None = None
        self._verdict: tuple[ExecutionState.ValueType, MeshError] | None = None

    @property
    def execution_id(self) -> str:
        """Id of the execution."""
        return self._journal.execution.execution_id

    def stop(self, state: ExecutionState.ValueType, error: MeshError) -> None:
        """End the run in this state unless it has ended by itself; the first reason is the one that is told."""
        self._verdict = self._verdict or (state, error)
        if self._work is not None:
            self._work.cancel()

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
                execution = self._journal.execution
                await self._journal.record(
                    execution_started=execution_pb2.ExecutionStarted(
                        flow=execution.flow, workspace_id=execution.workspace_id
                    )
                )
                async with self._broadcast:
                    verdict = await self._worked(tasks)
                    await self._broadcast.close(verdict[1])
                await self._journal.end(*verdict)
                writing.cancel()
        finally:
            _RUNNING.add(-1)
            state = ExecutionState.Name(self._journal.execution.state).removeprefix("EXECUTION_STATE_").lower()
            _EXECUTIONS.add(1, {"state": state})
            _SECONDS.record(monotonic() - begin, {"state": state})
            self.over.set()

    async def _worked(self, tasks: asyncio.TaskGroup) -> tuple[ExecutionState.ValueType, MeshError | None]:
        work = self._work = tasks.create_task(self._graph.run())
        if self._verdict is not None:
            work.cancel()
        await asyncio.wait({work}, timeout=self._timeout)
        if not work.done():
            error = DeadlineExceeded(f"The run took longer than its {self._timeout:g} s.")
            self.stop(execution_pb2.EXECUTION_STATE_FAILED, error)
            await asyncio.wait({work})
        if work.cancelled() and self._verdict is not None:
            return self._verdict
        succeeded = not work.cancelled() and work.result()
        return (execution_pb2.EXECUTION_STATE_SUCCEEDED if succeeded else execution_pb2.EXECUTION_STATE_FAILED), None
