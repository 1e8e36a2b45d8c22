"""The services of the orchestrator: unpack, ask the domain, pack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc

from mediamesh.api.flow.v1 import flow_edge_service_pb2_grpc, flow_service_pb2_grpc
from mediamesh.api.flow.v1 import flow_service_pb2 as pb
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_CANCELLED, EXECUTION_STATE_FAILED
from mediamesh.kit.boundary import time_left
from mediamesh.orchestrator import sse
from mediamesh.wire.errors import Cancelled, DeadlineExceeded

if TYPE_CHECKING:
    from google.api.httpbody_pb2 import HttpBody

    from mediamesh.orchestrator.catalog import Catalog
    from mediamesh.orchestrator.executions import Executions
    from mediamesh.orchestrator.run import Run
    from mediamesh.orchestrator.runlog import RunLog

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["FlowEdgeServicer", "FlowServicer"]

# A client resets its call when its own clock says that the deadline passed, which may be here before ours says so.
_CLOCK_SECONDS = 0.1
_LAST_EVENT_SECONDS = 0.2


class FlowServicer(flow_service_pb2_grpc.FlowServiceServicer):
    """Checks flows, runs them, and tells what happens."""

    def __init__(self, executions: Executions, log: RunLog, catalog: Catalog) -> None:
        self._executions = executions
        self._log = log
        self._catalog = catalog

    async def ValidateFlow(self, request: pb.ValidateFlowRequest, context: Context) -> pb.ValidateFlowResponse:
        """Check a flow and report everything that is wrong with it."""
        draft = await self._executions.validate(request.source)
        return pb.ValidateFlowResponse(issues=draft.in_order(), flow=draft.flow)

    async def RunFlow(self, request: pb.RunFlowRequest, context: Context) -> AsyncIterator[pb.RunFlowResponse]:
        """Run a flow for as long as the caller listens, and stream its events."""
        left = time_left(context)
        # The run ends a little before the call does, so that its last event still gets to the caller.
        timeout = None if left is None else max(0.001, left - min(_LAST_EVENT_SECONDS, left / 10))
        run = await self._executions.start(
            request.source, request.inputs, workspace_id=request.workspace_id, timeout=timeout
        )
        # The types of grpc.aio want a class of theirs here, which exists in the types only.
        context.add_done_callback(cast("Any", lambda ended: self._left(run, ended)))
        with self._heard(run, context):
            async for event in self._log.watch(run.execution_id, 0, stay=True):
                yield pb.RunFlowResponse(event=event)

    @contextmanager
    def _heard(self, run: Run, context: Context) -> Generator[None]:
        """End the run with the block: a call that was over before its callback was added does not call it."""
        try:
            yield
        finally:
            self._left(run, context)

    def _left(self, run: Run, context: Context) -> None:
        """End the run of a call that is over."""
        left = time_left(context)
        if left is not None and left <= _CLOCK_SECONDS:
            self._executions.leave(run, EXECUTION_STATE_FAILED, DeadlineExceeded("The caller's deadline passed."))
        else:
            self._executions.leave(run, EXECUTION_STATE_CANCELLED, Cancelled("The caller went away."))

    async def StartFlow(self, request: pb.StartFlowRequest, context: Context) -> pb.StartFlowResponse:
        """Start a flow that goes on by itself."""
        timeout = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
        run = await self._executions.start(
            request.source, request.inputs, workspace_id=request.workspace_id, timeout=timeout
        )
        return pb.StartFlowResponse(execution=await self._executions.confirmed(run))

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """Return one execution as it stands."""
        return pb.GetExecutionResponse(execution=await self._executions.get(request.execution_id))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """List executions of a workspace, newest first."""
        found, token = await self._executions.page(request.workspace_id, request.page_size, request.page_token)
        return pb.ListExecutionsResponse(executions=found, next_page_token=token)

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        """Cancel an execution."""
        return pb.CancelExecutionResponse(execution=await self._executions.cancel(request.execution_id))

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        """Stream the events of an execution from any position."""
        async for event in self._log.watch(request.execution_id, request.after_sequence):
            yield pb.WatchExecutionResponse(event=event)

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """List the agents that flows can use."""
        if not self._catalog.is_whole:
            # This server may have just begun, and have asked nobody yet.
            await self._catalog.refresh()
        return pb.ListAgentsResponse(agents=self._catalog.agents().values())


class FlowEdgeServicer(flow_edge_service_pb2_grpc.FlowEdgeServiceServicer):
    """The same events for clients that speak plain HTTP."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    async def WatchExecutionSse(self, request: pb.WatchExecutionRequest, context: Context) -> AsyncIterator[HttpBody]:
        """Stream the events of an execution as Server-Sent Events, or as lines of JSON."""
        headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        after = sse.position(headers.get("last-event-id"), request.after_sequence)
        async for frame in sse.text_of(self._log.watch(request.execution_id, after), headers.get("accept", "")):
            yield frame
