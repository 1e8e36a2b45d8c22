"""The runs that go on in this process: admitted, driven to their end, kept alive, stopped, handed over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_CANCELLED, EXECUTION_STATE_FAILED
from mediamesh.wire.errors import Cancelled, Overloaded, Unavailable

if TYPE_CHECKING:
    from mediamesh.orchestrator.run import Run
    from mediamesh.orchestrator.runlog import RunLog, Store
    from mediamesh.orchestrator.settings import Settings

__all__ = ["Running"]

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_SECONDS = 1.0
_STOP_SECONDS = 2.0


class Running:
    """Runs of this replica.

    Args:
        settings: How many may go on, how long a lease is, how long the grace at the end.
        store: Where leases are.
        log: Told which runs are ours.
        tasks: Where runs are driven.
    """

    def __init__(self, settings: Settings, *, store: Store, log: RunLog, tasks: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._tasks = tasks
        self._runs: dict[str, Run] = {}
        self._admitted = 0
        self.leaving = False

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._runs

    @property
    def has_room(self) -> bool:
        """Whether another run would be admitted."""
        return not self.leaving and self._admitted < self._settings.max_executions

    def admit(self) -> None:
        """Count a run that is about to begin; `drive` or `dismiss` must follow.

        Raises:
            Overloaded: too many go on.
            Unavailable: this replica is going away.
        """
        if self.leaving:
            raise Unavailable("The server is going away; start the run elsewhere.")
        if not self.has_room:
            raise Overloaded.retry(
                f"{self._settings.max_executions} runs go on already.",
                _RETRY_AFTER_SECONDS,
                limit=self._settings.max_executions,
            )
        self._admitted += 1

    def dismiss(self) -> None:
        """Count a run out that was admitted and did not begin."""
        self._admitted -= 1

    def drive(self, run: Run) -> None:
        """Let a run that was admitted, and that the log has as ours, go on by itself."""
        self._runs[run.execution_id] = run
        self._tasks.create_task(self._drive(run), name=f"run {run.execution_id}")

    async def _drive(self, run: Run) -> None:
        try:
            await run.drive()
        except Exception:  # noqa: BLE001 - one run that is given up must not end the others
            # Without its log a run cannot end well; when its lease has lapsed it is taken over, here or elsewhere.
            _LOG.exception("the run %s was given up", run.execution_id)
        finally:
            del self._runs[run.execution_id]
            self._admitted -= 1
            self._log.disown(run.execution_id)
        if run.handed_over:
            with suppress(Unavailable):
                await self._store.release(run.execution_id, run.fence)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for a run without waiting for it; it may fail."""
        self._tasks.create_task(_tolerant(work))

    def stop(self, execution_id: str) -> None:
        """Cancel a run if it is one of this replica."""
        run = self._runs.get(execution_id)
        if run is not None:
            run.stop(EXECUTION_STATE_CANCELLED, Cancelled("The run was cancelled."))

    async def renew(self) -> None:
        """Show as long as this goes on that the runs here are alive, and stop those that are not to go on."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            runs = dict(self._runs)
            fences = {execution_id: run.fence for execution_id, run in runs.items()}
            try:
                unwanted = await self._store.renew(fences) if fences else []
            except Unavailable as error:
                _LOG.warning("%s", error)
                continue
            for execution_id in unwanted:
                # One that was given up and taken over here meanwhile is another, of which nobody was asked.
                if self._runs.get(execution_id) is runs[execution_id]:
                    self.stop(execution_id)

    async def drain(self, *, heirs: bool) -> None:
        """Take no more runs, let those that go on finish in the time of grace, and leave or end the others.

        Args:
            heirs: Whether other replicas can read the log and go on; else runs end with a reason.
        """
        self.leaving = True
        self._log.leave()
        await self._wait(self._settings.grace_seconds)
        error = Unavailable("The server is going away.")
        for run in list(self._runs.values()):
            if heirs:
                run.hand_over(error)
            else:
                run.stop(EXECUTION_STATE_FAILED, error)
        await self._wait(_STOP_SECONDS)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for run in list(self._runs.values()):
                    await run.over.wait()


async def _tolerant(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Unavailable as error:
        _LOG.warning("%s", error)
    except Exception:  # noqa: BLE001 - what is done besides must not end the server
        _LOG.exception("what was to be done for a run has failed")
