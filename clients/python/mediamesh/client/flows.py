"""Checks flows, runs them, and follows what happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from time import monotonic
from typing import TYPE_CHECKING

from google.protobuf import duration_pb2

from mediamesh.api.flow.v1 import flow_service_pb2 as pb
from mediamesh.api.flow.v1.flow_service_pb2_grpc import FlowServiceStub
from mediamesh.wire.errors import DeadlineExceeded, MeshError, StreamInterrupted, Unavailable

if TYPE_CHECKING:
    import grpc

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent
    from mediamesh.api.flow.v1.flow_pb2 import FlowSource

__all__ = ["FlowClient"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_CLOCK_SECONDS = 0.1
_LEAVE_SECONDS = 5.0


class FlowClient:
    """The flows of a mesh.

    Args:
        channel: From `mediamesh.client.connect`.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = FlowServiceStub(channel)

    async def validate(self, source: FlowSource, *, timeout: float | None = None) -> pb.ValidateFlowResponse:
        """Check a flow and return everything that is wrong with it."""
        return await self._stub.ValidateFlow(pb.ValidateFlowRequest(source=source), timeout=timeout)

    async def run(
        self,
        source: FlowSource,
        inputs: Mapping[str, Value] | None = None,
        *,
        workspace_id: str = "",
        timeout: float | None = None,
    ) -> AsyncGenerator[ExecutionEvent]:
        """Run a flow and yield its events, each once; leaving the iteration early cancels the run.

        A server that dies or goes away once the run has begun is not seen: another one goes on with the run, and the
        events are read on as by `watch`.

        Args:
            source: The flow.
            inputs: Values for the output pins of `ui.*` nodes, by `node.pin`.
            workspace_id: Workspace that the run belongs to.
            timeout: Longest the run may take, in seconds.

        Raises:
            InvalidFlow: the flow has mistakes; its violations name file, line and column.
            InvalidRequest: an input does not fit.
            DeadlineExceeded: the timeout passed.
            Unavailable: no server could be reached, or none again for a minute.
            StreamInterrupted: the connection broke off before the first event, so that the run is not known.
        """
        request = pb.RunFlowRequest(source=source, inputs=inputs or {}, workspace_id=workspace_id)
        begin, run, position = monotonic(), "", 0
        call = self._stub.RunFlow(request, timeout=timeout)
        try:
            async for response in call:
                event = response.event
                if event.HasField("go_away"):
                    break
                run, position = event.execution_id, max(position, event.sequence, event.gap.last_sequence)
                yield event
                if event.HasField("execution_finished"):
                    return
        except (StreamInterrupted, Unavailable) as error:
            # At the deadline a proxy may break the call off just before our own clock ends it.
            if timeout is not None and monotonic() - begin >= timeout - _CLOCK_SECONDS:
                raise DeadlineExceeded(f"The run took longer than its {timeout:g} s.") from error
            if not run:
                raise
        finally:
            call.cancel()
        async with aclosing(self._rest(run, position)) as rest:
            async for event in rest:
                yield event

    async def _rest(self, run: str, position: int) -> AsyncGenerator[ExecutionEvent]:
        """Yield what follows in our run after its server was gone; leaving early cancels it."""
        ended = False
        try:
            async with aclosing(self.watch(run, position)) as events:
                async for event in events:
                    ended = event.HasField("execution_finished")
                    yield event
        finally:
            if not ended:
                with suppress(MeshError, TimeoutError):
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await self.cancel(run)

    async def start(
        self,
        source: FlowSource,
        inputs: Mapping[str, Value] | None = None,
        *,
        workspace_id: str = "",
        timeout: float | None = None,
    ) -> Execution:
        """Start a flow that goes on by itself, for ``timeout`` seconds at most; arguments and errors as for `run`."""
        request = pb.StartFlowRequest(source=source, inputs=inputs or {}, workspace_id=workspace_id)
        if timeout is not None:
            duration = duration_pb2.Duration()
            duration.FromNanoseconds(round(timeout * 1e9))
            request.timeout.CopyFrom(duration)
        return (await self._stub.StartFlow(request)).execution

    async def get(self, execution_id: str) -> Execution:
        """Return an execution as it stands.

        Raises:
            NotFound: there is none.
        """
        return (await self._stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))).execution

    async def agents(self) -> list[Manifest]:
        """Return the manifests of the agents that flows can use."""
        return list((await self._stub.ListAgents(pb.ListAgentsRequest())).agents)

    async def list(
        self, *, workspace_id: str = "", page_size: int = 0, page_token: str = ""
    ) -> pb.ListExecutionsResponse:
        """Return a page of a workspace's executions, newest first."""
        return await self._stub.ListExecutions(
            pb.ListExecutionsRequest(workspace_id=workspace_id, page_size=page_size, page_token=page_token)
        )

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution and return it; one that has ended stays as it is.

        Raises:
            NotFound: there is none.
        """
        return (await self._stub.CancelExecution(pb.CancelExecutionRequest(execution_id=execution_id))).execution

    async def watch(
        self, execution_id: str, after_sequence: int = 0, *, patience: float = 60.0
    ) -> AsyncGenerator[ExecutionEvent]:
        """Yield the events of an execution, each once and in order, until its last one.

        A connection that breaks off, or a server that goes away, is not seen: the watch goes on where it was, after a
        pause that doubles from 0.1 s to 5 s, with jitter.

        Args:
            execution_id: The execution.
            after_sequence: Sequence of the last event that the reader has; 0 for all.
            patience: How many seconds without a word from any server to bear.

        Raises:
            NotFound: there is no such execution.
            OutOfRange: it has no event of this sequence yet.
            Unavailable: no server answered within the patience.
            StreamInterrupted: no stream held within the patience.
        """
        position, pause, heard = after_sequence, _FIRST_PAUSE_SECONDS, monotonic()
        while True:
            failure: StreamInterrupted | Unavailable = StreamInterrupted("The stream ended before the run.")
            call = self._stub.WatchExecution(
                pb.WatchExecutionRequest(execution_id=execution_id, after_sequence=position)
            )
            try:
                async for response in call:
                    event = response.event
                    pause, heard = _FIRST_PAUSE_SECONDS, monotonic()
                    if event.HasField("go_away"):
                        break
                    if not event.sequence or event.sequence > position:
                        position = max(position, event.sequence, event.gap.last_sequence)
                        yield event
                    if event.HasField("execution_finished"):
                        return
                else:
                    # A watch from the last event on has nothing to tell.
                    if after_sequence == position:
                        return
            except (StreamInterrupted, Unavailable) as error:
                failure = error
            finally:
                call.cancel()
            if monotonic() - heard > patience:
                raise failure
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
