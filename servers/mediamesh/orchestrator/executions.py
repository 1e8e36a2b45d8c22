"""Runs of flows: admitted, driven to their end, cancelled, told about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_CANCELLED, Execution, ExecutionState
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.draft import Draft
from mediamesh.orchestrator.expansion import expanded
from mediamesh.orchestrator.features import check_features, failure_of
from mediamesh.orchestrator.inputs import prepared
from mediamesh.orchestrator.runlog.identity import new_id
from mediamesh.orchestrator.state import begun, has_ended
from mediamesh.wire.errors import MeshError, NotFound, Unavailable

if TYPE_CHECKING:
    from mediamesh.orchestrator.catalog import Catalog
    from mediamesh.orchestrator.factory import RunFactory
    from mediamesh.orchestrator.run import Run
    from mediamesh.orchestrator.runlog import RunLog, Store
    from mediamesh.orchestrator.running import Running
    from mediamesh.orchestrator.settings import Settings
    from mediamesh.orchestrator.takeover import Takeover

__all__ = ["Executions"]

_LOG = logging.getLogger(__name__)
_CANCEL_SECONDS = 2.0
_DEFAULT_PAGE = 50
_DEFAULT_WORKSPACE = "default"
_READ_IN_LOOP_BYTES = 32 * 1024


class Executions:
    """All runs that this replica knows of: its own, and through the store those of others."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        log: RunLog,
        catalog: Catalog,
        factory: RunFactory,
        running: Running,
        takeover: Takeover,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._catalog = catalog
        self._factory = factory
        self._running = running
        self._takeover = takeover

    async def validate(self, source: flow_pb2.FlowSource) -> Draft:
        """Read and check a flow; its mistakes are in the draft."""
        draft = await self._checked(source)
        is_unknown = any(issue.code == flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT for issue in draft.issues)
        if is_unknown or not self._catalog.is_whole:
            # An agent server may have come up since it was asked last; it may have what the flow names, or a converter.
            await self._catalog.refresh()
            draft = await self._checked(source)
        return draft

    async def _checked(self, source: flow_pb2.FlowSource) -> Draft:
        agents, unreachable = self._catalog.agents(), self._catalog.unreachable()

        def read_and_check() -> Draft:
            draft = expanded(source, max_nodes=self._settings.max_nodes)
            check_flow(draft, agents, unreachable)
            return draft

        # A large text takes long enough to hold up other calls.
        in_loop = source.ByteSize() <= _READ_IN_LOOP_BYTES
        return read_and_check() if in_loop else await asyncio.to_thread(read_and_check)

    async def start(
        self,
        source: flow_pb2.FlowSource,
        inputs: Mapping[str, value_pb2.Value],
        *,
        workspace_id: str,
        timeout: float | None,
    ) -> Run:
        """Check everything and begin a run, which goes on by itself.

        Raises:
            InvalidFlow: the flow has mistakes, one violation for each.
            StreamingNotSupported: it asks for streams of what has none.
            MultimodalNotSupported: it gives media to what takes none.
            InvalidRequest: an input does not fit.
            Overloaded: too many runs go on.
            Unavailable: the flow names agents of a server that cannot be reached, or this one is going away.
        """
        self._running.admit()
        try:
            run = await self._prepared(
                source,
                inputs,
                workspace_id or _DEFAULT_WORKSPACE,
                timeout or self._settings.execution_timeout_seconds,
            )
        except BaseException:
            self._running.dismiss()
            raise
        self._running.drive(run)
        return run

    async def _prepared(
        self,
        source: flow_pb2.FlowSource,
        inputs: Mapping[str, value_pb2.Value],
        workspace_id: str,
        timeout: float,
    ) -> Run:
        flow = await self._runnable(source)
        check_features(flow, inputs, self._settings)
        execution = begun(Execution(execution_id=new_id(), workspace_id=workspace_id, flow=flow), timeout)
        values = await prepared(
            flow,
            inputs,
            self._factory.media_of(execution),
            self._catalog.agents(),
            event_bytes=self._settings.max_event_bytes,
        )
        for (node_id, pin), value in values.items():
            execution.inputs[f"{node_id}.{pin}"].CopyFrom(value)
        self._log.own(execution.execution_id)
        try:
            await self._store.create(execution)
        except BaseException:
            self._log.disown(execution.execution_id)
            # The store may have it although its answer did not come, or nobody waits for it any more.
            self._running.later(self._store.discard(execution))
            raise
        return self._factory.make(execution)

    async def confirmed(self, run: Run) -> Execution:
        """Return the execution of a run once it has begun in the log, from when on it survives this replica."""
        async with aclosing(self._log.watch(run.execution_id, 0, stay=True)) as events:
            await anext(events)
        return await self.get(run.execution_id)

    async def _runnable(self, source: flow_pb2.FlowSource) -> flow_pb2.Flow:
        draft = await self.validate(source)
        if not draft.issues:
            return draft.flow
        unreachable = self._catalog.unreachable()
        if unreachable and all(issue.code == flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT for issue in draft.issues):
            # The flow may well be right: trying again can help, changing it cannot.
            raise Unavailable(" ".join(unreachable[:4]))
        raise failure_of(draft.in_order())

    async def get(self, execution_id: str) -> Execution:
        """Return an execution as it stands.

        Raises:
            NotFound: there is none, or it was so long ago that it is forgotten.
        """
        stored = await self._store.load([execution_id])
        if not stored:
            raise NotFound(f"There is no execution {execution_id}.")
        return stored[0].execution

    async def page(self, workspace_id: str, size: int, token: str) -> tuple[list[Execution], str]:
        """Return executions of a workspace, newest first, without inputs and outputs, and what to ask for next."""
        size = size or _DEFAULT_PAGE
        ids = await self._store.page(workspace_id or _DEFAULT_WORKSPACE, token, size)
        found = [stored.execution for stored in await self._store.load(ids)]
        for execution in found:
            execution.ClearField("inputs")
            for node in execution.nodes:
                node.ClearField("outputs")
        return found, ids[-1] if len(ids) == size else ""

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution, here or on another replica, and return it as it stands a moment later.

        Raises:
            NotFound: there is no such execution.
        """
        execution = await self.get(execution_id)
        if has_ended(execution):
            return execution
        self._running.stop(execution_id)
        # What runs here may be on its way to another replica, or there already.
        await self._store.ask_to_cancel(execution_id)
        # Where nobody holds it now, it is ended from here.
        await self._takeover.settle(execution_id)
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._ended(execution_id, execution.last_sequence)
        except TimeoutError:
            _LOG.warning("the run %s has not ended yet after it was cancelled", execution_id)
        return await self.get(execution_id)

    async def _ended(self, execution_id: str, after: int) -> None:
        async with aclosing(self._log.watch(execution_id, after, stay=True)) as events:
            async for _ in events:
                pass

    def leave(self, run: Run, state: ExecutionState.ValueType, error: MeshError) -> None:
        """End the run of a caller that is gone; one that has ended stays as it is.

        Where the run goes on at another replica, which took it over, that one is told; this one may not know of it yet.
        A caller whose connection ends as this replica goes away is not gone: it watches on elsewhere.
        """
        run.stop(state, error)
        if state == EXECUTION_STATE_CANCELLED and not (run.has_ended or self._running.leaving):
            self._running.later(self._store.ask_to_cancel(run.execution_id))

    async def serve(self) -> None:
        """Do what the log asks for: deliver events of other replicas, and cancel what somebody else was asked to."""
        while True:
            for execution_id in await self._log.poll():
                self._running.stop(execution_id)
