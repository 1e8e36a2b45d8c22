"""Finds runs that nobody holds any more, and goes on with them or ends them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.flow.v1.execution_pb2 import (
    EXECUTION_STATE_CANCELLED,
    EXECUTION_STATE_FAILED,
    Execution,
    ExecutionState,
)
from mediamesh.orchestrator.execution import Recall, Streams
from mediamesh.orchestrator.runlog.abandoned import claim, end_abandoned, open_streams
from mediamesh.orchestrator.state import has_ended
from mediamesh.wire.errors import Cancelled, DeadlineExceeded, MeshError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.orchestrator.factory import RunFactory
    from mediamesh.orchestrator.runlog import RunLog, Store, Stored
    from mediamesh.orchestrator.running import Running
    from mediamesh.orchestrator.settings import Settings

__all__ = ["Takeover"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.orchestrator")
_TAKEOVERS = _METER.create_counter(
    "mediamesh_flow_takeovers", description="Runs whose orchestrator was gone, by what became of them."
)
_AT_ONCE = 100
_PAGE = 100
_LONGEST_PERIOD_SECONDS = 2.0
_GONE = "The orchestrator that ran this execution is gone"


class Takeover:
    """Looks after runs whose lease has lapsed.

    Many replicas may find one at once: the store lets one of them write to its log, and the others leave it alone.

    Args:
        settings: How long a lease is, and how often a run may be taken over.
        store: Where runs are.
        log: Told which runs are ours.
        running: Where runs go on.
        factory: Makes them.
        streams: Where streams of theirs that broke off are ended.
        replica: Name of this orchestrator.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        log: RunLog,
        running: Running,
        factory: RunFactory,
        streams: Streams | None,
        replica: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._running = running
        self._factory = factory
        self._streams = streams
        self._replica = replica

    async def watch(self) -> None:
        """Look for such runs as long as this goes on."""
        period = min(_LONGEST_PERIOD_SECONDS, self._settings.lease_seconds / 4)
        while True:
            await asyncio.sleep(period * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            try:
                for execution_id in await self._store.lapsed(_AT_ONCE):
                    await self._try_to_settle(execution_id)
            except Unavailable as error:
                _LOG.warning("%s", error)
                # When the store is back, those who hold runs are to show first that they live.
                await asyncio.sleep(self._settings.lease_seconds)

    async def _try_to_settle(self, execution_id: str) -> None:
        try:
            await self.settle(execution_id)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one run that cannot be taken over must not keep others from it
            _LOG.exception("the run %s could not be taken over", execution_id)

    async def settle(self, execution_id: str) -> None:
        """Go on with a run if nobody holds it, or end it if nobody should.

        Raises:
            Unavailable: the store cannot be reached.
        """
        if execution_id in self._running:
            return
        found = await self._store.load([execution_id])
        if not found or has_ended(found[0].execution):
            await self._store.forget(execution_id)
            return
        stored = found[0]
        if stored.held:
            return
        if stored.cancelled:
            await self._end(stored, EXECUTION_STATE_CANCELLED, Cancelled("The run was cancelled."))
        elif 0 < stored.execution.deadline_time.ToNanoseconds() <= time.time_ns():
            await self._end(stored, EXECUTION_STATE_FAILED, DeadlineExceeded(f"{_GONE}, and its time is over."))
        elif not stored.execution.last_sequence:
            # Nobody was told that it began, so that its caller may have tried again.
            error = Unavailable("The orchestrator that was to run this execution was gone before it began.")
            await self._end(stored, EXECUTION_STATE_FAILED, error)
        elif stored.fence >= self._settings.max_takeovers:
            often = f", and the run was taken over as often as may be: {stored.fence}" if stored.fence else ""
            await self._end(stored, EXECUTION_STATE_FAILED, Unavailable(f"{_GONE}{often}."))
        elif self._running.has_room:
            await self._take(stored)

    async def _take(self, stored: Stored) -> None:
        past = Execution()
        past.CopyFrom(stored.execution)
        recall = Recall(self._log, past)
        sizes, first = await self._read(past, recall)
        needed = recall.first_needed()
        if needed is not None and needed < first - 1:
            lost = f"{_GONE}, and its log has lost the events before {first}, which who goes on would need."
            await self._end(stored, EXECUTION_STATE_FAILED, Unavailable(lost))
            return
        self._running.admit()
        try:
            taken = await claim(self._store, stored, self._replica)
        except BaseException:
            self._running.dismiss()
            raise
        if not taken:
            self._running.dismiss()
            return
        _TAKEOVERS.add(1, {"outcome": "taken"})
        execution = stored.execution
        _LOG.info("the run %s is taken over from event %d", execution.execution_id, past.last_sequence)
        self._log.own(execution.execution_id, execution.last_sequence)
        # What the claim itself has put into the log is there too; its few bytes do not count.
        sizes += [0] * (execution.last_sequence - past.last_sequence)
        self._running.drive(self._factory.make(execution, fence=stored.fence + 1, recall=recall, sizes=sizes))
        self._running.later(self._end_streams(open_streams(past), Unavailable("taken over")))

    async def _read(self, execution: Execution, recall: Recall) -> tuple[list[int], int]:
        """Read a log; return the sizes of its events, and the sequence of the first of them."""
        sizes, first, position = list[int](), 0, 0
        while page := await self._store.read(execution.execution_id, position, _PAGE):
            first = first or page[0].sequence
            for event in page:
                sizes.append(event.ByteSize())
                recall.learn(event)
            position = page[-1].sequence
        return sizes, first or 1

    async def _end(self, stored: Stored, state: ExecutionState.ValueType, error: MeshError) -> None:
        streams = open_streams(stored.execution)
        if await end_abandoned(self._store, stored, state, error):
            _TAKEOVERS.add(1, {"outcome": "ended"})
            _LOG.warning("the run %s is ended: %s", stored.execution.execution_id, error.text)
            self._running.later(self._end_streams(streams, error))

    async def _end_streams(self, stream_ids: Sequence[str], error: MeshError) -> None:
        """Tell the readers of streams that broke off that the rest does not come there."""
        if self._streams is not None:
            async with asyncio.TaskGroup() as tasks:
                for stream_id in stream_ids:
                    tasks.create_task(self._end_stream(self._streams, stream_id, error))

    async def _end_stream(self, streams: Streams, stream_id: str, error: MeshError) -> None:
        try:
            async with asyncio.timeout(self._settings.streams_patience_seconds):
                await streams.close(stream_id, reason="taken over", error=error.to_status())
        except (MeshError, TimeoutError) as failure:
            _LOG.warning("the stream %s is left open: %s", stream_id, failure)
