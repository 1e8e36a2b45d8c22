"""What the run log needs of a store; Valkey has it, and so has memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent

__all__ = ["Batch", "EventLog", "Fenced", "RunRegistry", "Stored"]


class Fenced(Exception):
    """The run has ended, or belongs to another replica: nothing may be appended."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An execution as it is stored.

    Attributes:
        execution: With ``last_sequence`` as in its log.
        held: Whether a replica that lives runs it.
    """

    execution: Execution
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events to append, all or none.

    Attributes:
        execution_id: The run.
        events: With sequences that follow each other.
        changed: Parts of the execution to replace, by their name in the store.
        floor: First sequence to keep; older events go.
        ended: Whether the last event is the run's last.
        abandoned: Append only if no replica holds the run, in place of only if this one does.
    """

    execution_id: str
    events: Sequence[ExecutionEvent]
    changed: Mapping[str, bytes]
    floor: int = 0
    ended: bool = False
    abandoned: bool = False


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

    async def load(self, execution_ids: Sequence[str]) -> list[Stored]:
        """Return those of the runs that are still stored, in the order given."""
        ...

    async def page(self, workspace_id: str, before: str, limit: int) -> list[str]:
        """Return ids of a workspace's runs, newest first, older than ``before`` unless that is empty."""
        ...

    async def renew(self, execution_ids: Iterable[str]) -> list[str]:
        """Show that this replica lives; return the runs that it no longer holds."""
        ...

    async def ask_to_cancel(self, execution_id: str) -> None:
        """Tell the replica that holds a run to cancel it."""
        ...
