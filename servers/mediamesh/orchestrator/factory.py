"""Puts runs together: those that begin, and those that were left."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.orchestrator.cancellation import Durations
from mediamesh.orchestrator.execution import (
    AgentNodes,
    Bounds,
    Broadcast,
    Graph,
    Journal,
    LogBounds,
    ResultCache,
    Retries,
    Streams,
)
from mediamesh.orchestrator.run import Run
from mediamesh.orchestrator.storage import MediaStore, RunMedia

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.execution_pb2 import Execution
    from mediamesh.orchestrator.catalog import Catalog
    from mediamesh.orchestrator.execution import Recall, Results
    from mediamesh.orchestrator.runlog import RunLog
    from mediamesh.orchestrator.settings import Settings

__all__ = ["RunFactory"]

_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFactory:
    """What every run of this orchestrator needs."""

    settings: Settings
    log: RunLog
    catalog: Catalog
    media: MediaStore
    streams: Streams | None
    results: Results | None
    later: Callable[[Coroutine[Any, Any, None]], None]
    durations: Durations = field(default_factory=Durations)

    def media_of(self, execution: Execution) -> RunMedia:
        """Return where the media of a run goes."""
        return RunMedia(
            self.media,
            workspace_id=execution.workspace_id,
            flow_id=execution.flow.id,
            execution_id=execution.execution_id,
        )

    def make(
        self, execution: Execution, *, fence: int = 0, recall: Recall | None = None, sizes: Iterable[int] = ()
    ) -> Run:
        """Return a run that can be driven.

        Args:
            execution: As it stands, with its inputs and its deadline.
            fence: Which holder of the run this orchestrator is.
            recall: What happened before; None for a run that begins.
            sizes: Bytes of each event that is in its log already.
        """
        settings = self.settings
        journal = Journal(self.log, execution, self._log_bounds(), fence=fence, sizes=sizes)
        bounds = Bounds(settings.stream_buffer_chunks, settings.stream_buffer_bytes)
        broadcast = Broadcast(
            self.streams,
            journal,
            bounds=bounds,
            patience_seconds=settings.streams_patience_seconds,
            later=self.later,
        )
        graph = Graph(
            execution.flow,
            {_split(key): value for key, value in execution.inputs.items()},
            journal=journal,
            broadcast=broadcast,
            agents=AgentNodes(
                agents=self.catalog,
                journal=journal,
                broadcast=broadcast,
                media=self.media_of(execution),
                retries=Retries(
                    attempts=settings.retry_attempts,
                    initial_seconds=settings.retry_pause_seconds,
                    longest_seconds=settings.retry_longest_pause_seconds,
                ),
                bounds=bounds,
                cache=ResultCache(self.results, max_bytes=settings.cache_max_bytes),
            ),
            bounds=bounds,
            timeout_seconds=settings.node_timeout_seconds,
            recall=recall,
        )
        ends_at = execution.deadline_time.ToNanoseconds()
        return Run(
            graph,
            journal,
            broadcast,
            timeout=max(_LEAST_SECONDS, (ends_at - time.time_ns()) / 1e9),
            limit=(ends_at - execution.create_time.ToNanoseconds()) / 1e9,
            durations=self.durations,
            fence=fence,
        )

    def _log_bounds(self) -> LogBounds:
        return LogBounds(
            event_bytes=self.settings.max_event_bytes,
            events=self.settings.log_max_events,
            bytes=self.settings.log_max_bytes,
        )


def _split(key: str) -> tuple[str, str]:
    """Return node and pin of an input; a pin has no dot."""
    node_id, _, pin = key.rpartition(".")
    return node_id, pin
