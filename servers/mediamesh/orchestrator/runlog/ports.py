"""What the run log needs of a store; Valkey has it, and so has memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent

__all__ = ["Batch", "EventLog", "Fenced", "RunRegistry", "Store", "Stored"]


class Fenced(Exception):
    """The run has ended, or belongs to another replica: nothing may be appended."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An execution as it is stored.

    Attributes:
        execution: With ``last_sequence`` as in its log.
        held: Whether a replica that lives runs it.
        fence: Which holder of the run is the last one, from 0; what an earlier one says does not count.
        cancelled: Whether somebody asked to cancel it.
    """

    execution: Execution
    held: bool
    fence: int = 0
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events to append, all or none.

    Attributes:
        execution_id: The run.
        events: With sequences that follow each other.
        changed: Parts of the execution to replace, by their name in the store.
        floor: First sequence to keep; older events go.
        ended: Whether the last event is the run's last.
        fence: Which holder of the run this replica is.
        abandoned: Append only if no replica holds the run, in place of only if this one does.
        claim: Likewise, and hold it from now on, as the holder with number ``fence``, which must be the next one.
    """

    execution_id: str
    events: Sequence[ExecutionEvent]
    changed: Mapping[str, bytes]
    floor: int = 0
    ended: bool = False
    fence: int = 0
    abandoned: bool = False
    claim: bool = False


class EventLog(Protocol):
    """Events of runs, in order."""

    async def append(self, batch: Batch) -> None:
        """Append if the first event is the next one; saying the same again changes nothing.

        Raises:
            Fenced: the run ended, another replica holds it, or another event has this sequence.
            Unavailable: the store cannot be reached.
        """
        ...

    async def read(self, execution_id: str, after: int, limit: int) -> list[ExecutionEvent]:
        """Return the events after a sequence that are still there, ``limit`` at most."""
        ...

    async def poll(self, positions: Mapping[str, int]) -> tuple[list[ExecutionEvent], list[str]]:
        """Wait, some seconds at most, for an event after any of the positions, a cancellation asked for, or `wake`.

        Returns:
            Events by run in order, and the executions that somebody asked this replica to cancel.
        """
        ...

    async def wake(self) -> None:
        """Make `poll` return."""
        ...


class RunRegistry(Protocol):
    """Which runs there are, and who runs them."""

    async def create(self, execution: Execution) -> None:
        """Store a new run that this replica holds."""
        ...

    async def discard(self, execution: Execution) -> None:
        """Forget a run that never began."""
        ...

    async def load(self, execution_ids: Sequence[str]) -> list[Stored]:
        """Return those of the runs that are still stored, in the order given."""
        ...

    async def page(self, workspace_id: str, before: str, limit: int) -> list[str]:
        """Return ids of a workspace's runs, newest first, older than ``before`` unless that is empty."""
        ...

    async def renew(self, fences: Mapping[str, int]) -> list[str]:
        """Show that this replica lives.

        Returns:
            The runs, of those given with their fences, that are to stop here: this replica no longer holds them, or
            somebody asked to cancel them, whose letter may have been lost while they passed from one to another.
        """
        ...

    async def release(self, execution_id: str, fence: int) -> None:
        """Let go of a run that goes on, so that another replica takes it over at once."""
        ...

    async def lapsed(self, limit: int) -> list[str]:
        """Return runs of any workspace that have not ended and that nobody holds, ``limit`` at most."""
        ...

    async def forget(self, execution_id: str) -> None:
        """Have `lapsed` not name a run any more, as it has ended or is no longer stored."""
        ...

    async def ask_to_cancel(self, execution_id: str) -> None:
        """Tell the replica that holds a run, or the one that takes it over, to cancel it."""
        ...


class Store(EventLog, RunRegistry, Protocol):
    """Both ports, as one store."""

    async def check(self) -> None:
        """Raise Unavailable when the store is not there."""
