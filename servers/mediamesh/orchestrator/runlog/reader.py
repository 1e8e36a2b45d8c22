"""Events of runs for those who watch: what is past from the store, what is new from memory, with no seam.

A watcher is a position and nothing else. The newest events of each run that is watched are in a ring that all its
watchers share, and who falls behind the ring reads from the store until it has caught up. So memory is bounded by run,
however many watch and however slowly. Events of runs of this process enter the ring when they are stored; those of
other replicas come from one blocking read for the whole process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from time import monotonic
from typing import TypeVar

from mediamesh.api.agent.v1 import agent_service_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.orchestrator.runlog.ports import Batch, Store
from mediamesh.orchestrator.state import has_ended
from mediamesh.wire.errors import NotFound, OutOfRange, Unavailable

__all__ = ["RunLog"]

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
_PAGE = 100
_RING_EVENTS = 256
_RING_BYTES = 2 * 1024 * 1024
_RETRY_SECONDS = 0.5


class _Tail:
    """The newest events of one run."""

    def __init__(self, newest: int, *, ours: bool) -> None:
        self.newest = newest
        self.ours = ours
        self.ended = False
        self.users = 0
        self._ring: deque[ExecutionEvent] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    def push(self, event: ExecutionEvent) -> None:
        """Add the next event; one that is known already changes nothing."""
        if event.sequence <= self.newest:
            return
        if self._ring and event.sequence != self._ring[-1].sequence + 1:
            self._ring.clear()
            self._bytes = 0
        self._ring.append(event)
        self._bytes += event.ByteSize()
        while len(self._ring) > _RING_EVENTS or (self._bytes > _RING_BYTES and len(self._ring) > 1):
            self._bytes -= self._ring.popleft().ByteSize()
        self.newest = event.sequence
        self.ended = event.WhichOneof("event") == "execution_finished"
        self.notify()

    def after(self, position: int) -> Sequence[ExecutionEvent]:
        """Return the events after a position; none when the ring does not reach back so far."""
        if not self._ring or self._ring[0].sequence > position + 1:
            return ()
        return list(islice(self._ring, position + 1 - self._ring[0].sequence, None))

    def notify(self) -> None:
        """Wake all who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait for something new, not longer than this."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return


class RunLog:
    """Appends events of this process's runs, and reads those of all."""

    def __init__(self, store: Store, *, heartbeat_seconds: float, lease_seconds: float) -> None:
        self._store = store
        self._heartbeat = heartbeat_seconds
        self._lease = lease_seconds
        self._tick = min(heartbeat_seconds, lease_seconds / 2)
        self._tails: dict[str, _Tail] = {}
        self._leaving = False

    def own(self, execution_id: str, newest: int = 0) -> None:
        """Keep the newest events of a run in memory that goes on in this process from now on, until `disown`.

        Args:
            execution_id: The run.
            newest: Sequence of its newest event.
        """
        tail = self._tails.setdefault(execution_id, _Tail(newest, ours=True))
        tail.ours, tail.newest = True, max(tail.newest, newest)
        tail.users += 1
        tail.notify()

    def disown(self, execution_id: str) -> None:
        """Leave a run of this process to the store; who watches it reads on from there."""
        tail = self._tails[execution_id]
        tail.ours = False
        tail.notify()
        self._release(execution_id, tail)

    async def append(self, batch: Batch) -> None:
        """Store events, then deliver them; a store that is away for less than a lease is waited for.

        Raises:
            Fenced: the run is not ours any more.
            Unavailable: the store cannot be reached.
        """
        # Saying it again is safe: the store knows what it has.
        await self._waited_for(partial(self._store.append, batch))
        tail = self._tails.get(batch.execution_id)
        if tail is not None:
            for event in batch.events:
                tail.push(event)

    async def read(self, execution_id: str, after: int, limit: int) -> list[ExecutionEvent]:
        """Return the events after a sequence that are still there, ``limit`` at most; waits as `append` does.

        Raises:
            Unavailable: the store cannot be reached.
        """
        return await self._waited_for(partial(self._store.read, execution_id, after, limit))

    async def _waited_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        give_up = monotonic() + self._lease
        while True:
            try:
                return await ask()
            except Unavailable as error:
                if monotonic() > give_up:
                    raise
                _LOG.warning("%s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    def leave(self) -> None:
        """Tell all who watch, but those who own, to go on elsewhere."""
        self._leaving = True
        for tail in self._tails.values():
            tail.notify()

    async def poll(self) -> list[str]:
        """Deliver what came from other replicas, waiting some seconds at most.

        Returns:
            The executions that somebody asked this replica to cancel.
        """
        positions = {known: tail.newest for known, tail in self._tails.items() if not tail.ours and not tail.ended}
        try:
            events, cancelled = await self._store.poll(positions)
        except Unavailable as error:
            _LOG.warning("%s", error)
            await asyncio.sleep(_RETRY_SECONDS)
            return []
        for event in events:
            if tail := self._tails.get(event.execution_id):
                tail.push(event)
        return cancelled

    async def watch(self, execution_id: str, after: int, *, stay: bool = False) -> AsyncGenerator[ExecutionEvent]:
        """Yield the events after a sequence, live after what is past, until the last one.

        Args:
            execution_id: The run.
            after: Sequence of the last event that the reader has; 0 for all.
            stay: Whether to read on when the server is going away, for as long as the run goes on in it.

        Raises:
            NotFound: there is no such run, or its log is gone.
            OutOfRange: the sequence is not there yet.
        """
        async with self._tail(execution_id) as tail:
            if after > tail.newest and after > (newest := await self._newest(execution_id)):
                raise OutOfRange(
                    f"There is no event {after} of {execution_id} yet; the newest is {newest}.", newest=newest
                )
            position, spoke = after, monotonic()
            while not (tail.ended and position >= tail.newest):
                if position < tail.newest:
                    async for event in self._past(execution_id, tail, position):
                        yield event
                        position = event.sequence or position
                    spoke = monotonic()
                    continue
                if self._leaving and not (stay and tail.ours):
                    yield ExecutionEvent(
                        execution_id=execution_id,
                        go_away=agent_service_pb2.GoAway(
                            reason="The server is going away; watch on from another.", resume_token=str(position)
                        ),
                    )
                    return
                await tail.wait(self._tick)
                if position >= tail.newest and monotonic() - spoke >= self._tick:
                    await self._look(execution_id, tail)
                if position >= tail.newest and monotonic() - spoke >= self._heartbeat:
                    spoke = monotonic()
                    heartbeat = execution_pb2.EventHeartbeat(last_sequence=position)
                    yield ExecutionEvent(execution_id=execution_id, heartbeat=heartbeat)

    async def _past(self, execution_id: str, tail: _Tail, position: int) -> AsyncGenerator[ExecutionEvent]:
        events = tail.after(position) or await self.read(execution_id, position, _PAGE)
        if not events:
            raise NotFound(f"The log of {execution_id} is gone.")
        if (first := events[0].sequence) > position + 1:
            lost = execution_pb2.EventGap(first_sequence=position + 1, last_sequence=first - 1)
            yield ExecutionEvent(execution_id=execution_id, gap=lost)
        for event in events:
            yield event

    async def _newest(self, execution_id: str) -> int:
        stored = await self._store.load([execution_id])
        if not stored:
            raise NotFound(f"There is no execution {execution_id}.")
        return stored[0].execution.last_sequence

    async def _look(self, execution_id: str, tail: _Tail) -> None:
        """See how far the run of another replica is."""
        if tail.ours:
            return
        stored = await self._waited_for(partial(self._store.load, [execution_id]))
        if not stored:
            raise NotFound(f"The log of {execution_id} is gone.")
        self._advance(tail, stored[0].execution)

    @staticmethod
    def _advance(tail: _Tail, execution: execution_pb2.Execution) -> None:
        tail.newest = max(tail.newest, execution.last_sequence)
        tail.ended = tail.ended or has_ended(execution)
        tail.notify()

    @asynccontextmanager
    async def _tail(self, execution_id: str) -> AsyncGenerator[_Tail]:
        tail = self._tails.get(execution_id)
        if tail is None:
            stored = await self._store.load([execution_id])
            if not stored:
                raise NotFound(f"There is no execution {execution_id}.")
            execution = stored[0].execution
            # Another watcher may have opened it meanwhile.
            if (tail := self._tails.get(execution_id)) is None:
                tail = self._tails[execution_id] = _Tail(execution.last_sequence, ours=False)
            tail.users += 1
            self._advance(tail, execution)
            if not tail.ended:
                await self._wake(execution_id, tail)
        else:
            tail.users += 1
        try:
            yield tail
        finally:
            self._release(execution_id, tail)

    async def _wake(self, execution_id: str, tail: _Tail) -> None:
        try:
            await self._store.wake()
        except BaseException:
            self._release(execution_id, tail)
            raise

    def _release(self, execution_id: str, tail: _Tail) -> None:
        tail.users -= 1
        if tail.users == 0 and self._tails.get(execution_id) is tail:
            del self._tails[execution_id]
