"""What a model did, counted in Triton's terms, and as metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.inference.v2 import inference_service_pb2 as pb

if TYPE_CHECKING:
    from mediamesh.inference.queue import Ticket

__all__ = ["Run", "Statistics"]

_METER = metrics.get_meter("mediamesh.inference")
_QUEUE = _METER.create_histogram(
    "mediamesh_inference_queue",
    unit="s",
    description="Time that requests waited for a worker.",
    explicit_bucket_boundaries_advisory=[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
)
_RUN = _METER.create_histogram(
    "mediamesh_inference_run",
    unit="s",
    description="Time that one run of a batch took.",
    explicit_bucket_boundaries_advisory=[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10],
)
_ITEMS = _METER.create_histogram(
    "mediamesh_inference_batch_items",
    description="Items in one run.",
    explicit_bucket_boundaries_advisory=[1, 2, 4, 8, 16, 32, 64, 128],
)
_DROPPED = _METER.create_counter(
    "mediamesh_inference_dropped", description="Requests that never ran: cancelled, expired or refused."
)


@dataclass(frozen=True, slots=True)
class Run:
    """When the stages of one batch began, by ``time.monotonic_ns``.

    Attributes:
        taken: The batch left the queue.
        joined: Its tensors were put together.
        ran: The model had run.
        ended: The outputs were split.
    """

    taken: int
    joined: int
    ran: int
    ended: int


class Statistics:
    """Counters of one version of a model; used in the event loop only."""

    def __init__(self, name: str, version: str) -> None:
        self._counters = pb.ModelStatistics(name=name, version=version)
        self._sizes: dict[int, pb.InferBatchStatistics] = {}
        self._labels = {"model": name, "version": version}
        self._labels_by_reason = {
            reason: {**self._labels, "reason": reason} for reason in ("cancelled", "expired", "refused")
        }
        self.run_seconds = 0.0

    def snapshot(self) -> pb.ModelStatistics:
        """Return a copy of the counters."""
        copy = pb.ModelStatistics()
        copy.CopyFrom(self._counters)
        return copy

    def dropped(self, reason: str, waited: int = 0) -> None:
        """Count a request that did not run: ``cancelled``, ``expired`` or ``refused``, after so many nanoseconds."""
        _DROPPED.add(1, self._labels_by_reason[reason])
        _add(self._counters.inference_stats.fail, waited)

    def failed(self, tickets: list[Ticket], ended: int) -> None:
        """Count requests that ran, or would have run, and failed."""
        for ticket in tickets:
            _add(self._counters.inference_stats.fail, ended - ticket.arrived)

    def ran(self, batch: list[Ticket], run: Run) -> None:
        """Count a batch that succeeded."""
        counters, stats = self._counters, self._counters.inference_stats
        items = sum(ticket.items for ticket in batch)
        stages = (run.joined - run.taken, run.ran - run.joined, run.ended - run.ran)
        counters.last_inference = time.time_ns() // 1_000_000
        counters.inference_count += items
        counters.execution_count += 1
        for ticket in batch:
            waited = run.taken - ticket.arrived
            _add(stats.success, run.ended - ticket.arrived)
            _add(stats.queue, waited)
            _QUEUE.record(waited / 1e9, self._labels)
        for counter, spent in zip(
            (stats.compute_input, stats.compute_infer, stats.compute_output), stages, strict=True
        ):
            _add(counter, spent, len(batch))
        size = self._of_size(items)
        for counter, spent in zip((size.compute_input, size.compute_infer, size.compute_output), stages, strict=True):
            _add(counter, spent)
        seconds = stages[1] / 1e9
        self.run_seconds = 0.9 * self.run_seconds + 0.1 * seconds if self.run_seconds else seconds
        _RUN.record(seconds, self._labels)
        _ITEMS.record(items, self._labels)

    def _of_size(self, items: int) -> pb.InferBatchStatistics:
        if items not in self._sizes:
            self._sizes[items] = self._counters.batch_stats.add(batch_size=items)
        return self._sizes[items]


def _add(counter: pb.StatisticDuration, nanoseconds: int, count: int = 1) -> None:
    # Triton counts the whole stage for each request of a batch.
    counter.count += count
    counter.ns += count * nanoseconds
