"""Runs in memory: the twin of Valkey for one process, and for tests that want many replicas in one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent
from mediamesh.orchestrator.runlog.parts import assembled, inputs_part, parts_of
from mediamesh.orchestrator.runlog.ports import Batch, Fenced, Stored

__all__ = ["Memory", "MemoryStore"]

_BLOCK_SECONDS = 2.0


@dataclass(slots=True)
class _Run:
    workspace_id: str
    parts: dict[str, bytes]
    holder: str
    held_until: float
    expires: float
    log: dict[int, bytes] = field(default_factory=dict)
    newest: int = 0
    fence: int = 0
    ended: bool = False
    cancelled: bool = False


class Memory:
    """What the stores of several replicas share."""

    def __init__(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.letters: dict[str, list[str]] = {}
        self.changed = asyncio.Condition()

    def run(self, execution_id: str) -> _Run | None:
        """Return a run that has not expired."""
        run = self.runs.get(execution_id)
        if run is not None and run.expires <= monotonic():
            del self.runs[execution_id]
            return None
        return run


class MemoryStore:
    """The event log and the registry of runs in memory."""

    def __init__(self, memory: Memory, *, replica: str, ttl_seconds: float, lease_seconds: float) -> None:
        self._memory = memory
        self._replica = replica
        self._ttl = ttl_seconds
        self._lease = lease_seconds
        memory.letters[replica] = []

    async def check(self) -> None:
        """Memory is always there."""

    async def append(self, batch: Batch) -> None:
        """See `EventLog.append`."""
        run = self._memory.run(batch.execution_id)
        if run is None:
            raise Fenced(batch.execution_id)
        first = batch.events[0]
        if run.newest >= first.sequence:
            if run.log.get(first.sequence) == first.SerializeToString(deterministic=True):
                return
            raise Fenced(batch.execution_id)
        if run.newest != first.sequence - 1 or run.ended or not self._may_append(run, batch):
            raise Fenced(batch.execution_id)
        for event in batch.events:
            run.newest = event.sequence
            run.log[event.sequence] = event.SerializeToString(deterministic=True)
        for sequence in [known for known in run.log if known < batch.floor]:
            del run.log[sequence]
        run.parts.update(batch.changed)
        run.ended, run.expires = batch.ended, monotonic() + self._ttl
        if not batch.abandoned:
            run.holder, run.held_until, run.fence = self._replica, monotonic() + self._lease, batch.fence
        async with self._memory.changed:
            self._memory.changed.notify_all()

    def _may_append(self, run: _Run, batch: Batch) -> bool:
        if not (batch.claim or batch.abandoned):
            return self._holds(run, batch.fence)
        return not run.held_until > monotonic() and (not batch.claim or batch.fence == run.fence + 1)

    def _holds(self, run: _Run, fence: int) -> bool:
        return run.fence == fence and (run.holder == self._replica or run.held_until <= monotonic())

    async def read(self, execution_id: str, after: int, limit: int) -> list[ExecutionEvent]:
        """See `EventLog.read`."""
        run = self._memory.run(execution_id)
        entries = sorted(run.log.items()) if run is not None else []
        return [ExecutionEvent.FromString(event) for sequence, event in entries if sequence > after][:limit]

    async def poll(self, positions: Mapping[str, int]) -> tuple[list[ExecutionEvent], list[str]]:
        """See `EventLog.poll`."""
        async with self._memory.changed:
            if not self._memory.letters[self._replica] and not self._has_news(positions):
                try:
                    async with asyncio.timeout(_BLOCK_SECONDS):
                        await self._memory.changed.wait()
                except TimeoutError:
                    return [], []
        events = [event for run, last in positions.items() for event in await self.read(run, last, 200)]
        letters, self._memory.letters[self._replica] = self._memory.letters[self._replica], []
        return events, [letter for letter in letters if letter]

    def _has_news(self, positions: Mapping[str, int]) -> bool:
        return any((run := self._memory.run(known)) and run.newest > last for known, last in positions.items())

    async def wake(self) -> None:
        """See `EventLog.wake`."""
        await self._post(self._replica, "")

    async def create(self, execution: Execution) -> None:
        """See `RunRegistry.create`."""
        now = monotonic()
        self._memory.runs[execution.execution_id] = _Run(
            execution.workspace_id,
            parts_of(execution) | inputs_part(execution),
            self._replica,
            now + self._lease,
            now + self._ttl,
        )

    async def discard(self, execution: Execution) -> None:
        """See `RunRegistry.discard`."""
        self._memory.runs.pop(execution.execution_id, None)

    async def load(self, execution_ids: Sequence[str]) -> list[Stored]:
        """See `RunRegistry.load`."""
        found = [self._memory.run(execution_id) for execution_id in execution_ids]
        return [
            Stored(
                assembled(run.parts, run.newest),
                held=not run.ended and run.held_until > monotonic(),
                fence=run.fence,
                cancelled=run.cancelled,
            )
            for run in found
            if run is not None
        ]

    async def page(self, workspace_id: str, before: str, limit: int) -> list[str]:
        """See `RunRegistry.page`."""
        ids = sorted(
            (known for known, run in self._memory.runs.items() if run.workspace_id == workspace_id), reverse=True
        )
        return [known for known in ids if not before or known < before][:limit]

    async def renew(self, fences: Mapping[str, int]) -> list[str]:
        """See `RunRegistry.renew`."""
        unwanted = []
        for execution_id, fence in fences.items():
            run = self._memory.run(execution_id)
            if run is None or run.ended or not self._holds(run, fence):
                unwanted.append(execution_id)
                continue
            run.holder, run.held_until = self._replica, monotonic() + self._lease
            run.expires = monotonic() + self._ttl
            if run.cancelled:
                unwanted.append(execution_id)
        return unwanted

    async def release(self, execution_id: str, fence: int) -> None:
        """See `RunRegistry.release`."""
        run = self._memory.run(execution_id)
        if run is not None and run.holder == self._replica and run.fence == fence:
            run.held_until = 0

    async def lapsed(self, limit: int) -> list[str]:
        """See `RunRegistry.lapsed`."""
        runs = [(known, run) for known in list(self._memory.runs) if (run := self._memory.run(known)) is not None]
        return [known for known, run in runs if not run.ended and run.held_until <= monotonic()][:limit]

    async def forget(self, execution_id: str) -> None:
        """See `RunRegistry.forget`; a run that has ended is known by that."""

    async def ask_to_cancel(self, execution_id: str) -> None:
        """See `RunRegistry.ask_to_cancel`."""
        run = self._memory.run(execution_id)
        if run is None or run.ended:
            return
        run.cancelled = True
        if run.held_until > monotonic():
            await self._post(run.holder, execution_id)

    async def _post(self, replica: str, letter: str) -> None:
        self._memory.letters.setdefault(replica, []).append(letter)
        async with self._memory.changed:
            self._memory.changed.notify_all()
