"""Runs of flows: admitted, driven to their end, cancelled, told about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_CANCELLED, EXECUTION_STATE_FAILED, Execution
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.draft import Draft
from mediamesh.orchestrator.execution import Bounds, Broadcast, Graph, Journal, LogBounds, Streams
from mediamesh.orchestrator.features import check_features, failure_of
from mediamesh.orchestrator.inputs import prepared
from mediamesh.orchestrator.run import Run
from mediamesh.orchestrator.runlog import RunLog
from mediamesh.orchestrator.runlog.abandoned import Store, settled
from mediamesh.orchestrator.runlog.identity import new_id
from mediamesh.orchestrator.source import read_flow
from mediamesh.orchestrator.state import begun, has_ended
from mediamesh.orchestrator.storage import MediaStore, RunMedia
from mediamesh.wire.errors import Cancelled, NotFound, Overloaded, Unavailable

if TYPE_CHECKING:
    from mediamesh.orchestrator.catalog import Catalog
    from mediamesh.orchestrator.settings import Settings

__all__ = ["Executions"]

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_SECONDS = 1.0
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
        media: MediaStore,
        streams: Streams | None,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._catalog = catalog
        self._media = media
        self._streams = streams
        self._tasks = tasks
        self._runs: dict[str, Run] = {}
        self._admitted = 0
        self._leaving = False

    async def validate(self, source: flow_pb2.FlowSource) -> Draft:
        """Read and check a flow; its mistakes are in the draft."""
        draft = await self._checked(source)
        if any(issue.code == flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT for issue in draft.issues):
            # An agent server may have come up since it was asked last.
            await self._catalog.refresh()
            draft = await self._checked(source)
        return draft

    async def _checked(self, source: flow_pb2.FlowSource) -> Draft:
        agents, unreachable = self._catalog.agents(), self._catalog.unreachable()

        def read_and_check() -> Draft:
            draft = read_flow(source, max_nodes=self._settings.max_nodes)
            check_flow(draft, agents, unreachable)
            return draft

        # A large text takes long enough to hold up other calls.
        in_loop = len(source.yaml) <= _READ_IN_LOOP_BYTES
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
        if self._leaving:
            raise Unavailable("The server is going away; start the run elsewhere.")
        if self._admitted >= self._settings.max_executions:
            raise Overloaded.retry(
                f"{self._settings.max_executions} runs go on already.",
                _RETRY_AFTER_SECONDS,
                limit=self._settings.max_executions,
            )
        self._admitted += 1
        try:
            run = await self._prepared(source, inputs, workspace_id or _DEFAULT_WORKSPACE, timeout)
        except BaseException:
            self._admitted -= 1
            raise
        self._tasks.create_task(self._drive(run), name=f"run {run.execution_id}")
        return run

    async def _prepared(
        self,
        source: flow_pb2.FlowSource,
        inputs: Mapping[str, value_pb2.Value],
        workspace_id: str,
        timeout: float | None,
    ) -> Run:
        flow = await self._runnable(source)
        check_features(flow, inputs, self._settings)
        execution = begun(Execution(execution_id=new_id(), workspace_id=workspace_id, flow=flow))
        media = RunMedia(self._media, workspace_id=workspace_id, flow_id=flow.id, execution_id=execution.execution_id)
        values = await prepared(flow, inputs, media, self._catalog.agents())
        journal = Journal(self._log, execution, self._log_bounds())
        bounds = Bounds(self._settings.stream_buffer_chunks, self._settings.stream_buffer_bytes)
        broadcast = Broadcast(
            self._streams, journal, bounds=bounds, patience_seconds=self._settings.streams_patience_seconds
        )
        graph = Graph(
            flow,
            values,
            journal=journal,
            broadcast=broadcast,
            media=media,
            agents=self._catalog,
            bounds=bounds,
            timeout_seconds=self._settings.node_timeout_seconds,
            pause_seconds=self._settings.retry_pause_seconds,
        )
        self._log.own(execution.execution_id)
        try:
            await self._store.create(execution)
        except BaseException:
            self._log.disown(execution.execution_id)
            raise
        return Run(graph, journal, broadcast, timeout=timeout or self._settings.execution_timeout_seconds)

    def _log_bounds(self) -> LogBounds:
        return LogBounds(
            event_bytes=self._settings.max_event_bytes,
            events=self._settings.log_max_events,
            bytes=self._settings.log_max_bytes,
        )

    async def _runnable(self, source: flow_pb2.FlowSource) -> flow_pb2.Flow:
        draft = await self.validate(source)
        if not draft.issues:
            return draft.flow
        unreachable = self._catalog.unreachable()
        if unreachable and all(issue.code == flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT for issue in draft.issues):
            # The flow may well be right: trying again can help, changing it cannot.
            raise Unavailable(" ".join(unreachable[:4]))
        raise failure_of(draft.in_order())

    async def _drive(self, run: Run) -> None:
        self._runs[run.execution_id] = run
        try:
            await run.drive()
        except Exception:  # noqa: BLE001 - one run that is given up must not end the others
            # Without its log a run cannot end well; who looks at it next, here or elsewhere, ends it.
            _LOG.exception("the run %s was given up", run.execution_id)
        finally:
            del self._runs[run.execution_id]
            self._admitted -= 1
            self._log.disown(run.execution_id)

    async def get(self, execution_id: str) -> Execution:
        """Return an execution as it stands.

        Raises:
            NotFound: there is none, or it was so long ago that it is forgotten.
        """
        stored = await self._store.load([execution_id])
        if not stored:
            raise NotFound(f"There is no execution {execution_id}.")
        return await settled(self._store, stored[0])

    async def page(self, workspace_id: str, size: int, token: str) -> tuple[list[Execution], str]:
        """Return executions of a workspace, newest first and without outputs, and what to ask for next."""
        size = size or _DEFAULT_PAGE
        ids = await self._store.page(workspace_id or _DEFAULT_WORKSPACE, token, size)
        found = [await settled(self._store, stored) for stored in await self._store.load(ids)]
        for execution in found:
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
        if not self.stop(execution_id):
            await self._store.ask_to_cancel(execution_id)
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

    def stop(self, execution_id: str) -> bool:
        """Cancel a run of this replica; return whether it is one."""
        run = self._runs.get(execution_id)
        if run is not None:
            run.stop(EXECUTION_STATE_CANCELLED, Cancelled("The run was cancelled."))
        return run is not None

    async def serve(self) -> None:
        """Do what the log asks for: deliver events of other replicas, and cancel what somebody else was asked to."""
        while True:
            for execution_id in await self._log.poll():
                self.stop(execution_id)

    async def renew(self) -> None:
        """Show as long as this goes on that the runs here are alive."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            try:
                lost = await self._store.renew(list(self._runs)) if self._runs else []
            except Unavailable as error:
                _LOG.warning("%s", error)
                continue
            for execution_id in lost:
                self.stop(execution_id)

    async def drain(self) -> None:
        """Take no more runs, let those that go on finish in the time of grace, and end the others with a reason."""
        self._leaving = True
        self._log.leave()
        _, late = await self._wait(self._settings.grace_seconds)
        for run in late:
            run.stop(EXECUTION_STATE_FAILED, Unavailable("The server is going away."))
        await self._wait(_CANCEL_SECONDS)

    async def _wait(self, seconds: float) -> tuple[set[Run], set[Run]]:
        runs = set(self._runs.values())
        try:
            async with asyncio.timeout(seconds):
                for run in runs:
                    await run.over.wait()
        except TimeoutError:
            pass
        return {run for run in runs if run.over.is_set()}, {run for run in runs if not run.over.is_set()}
