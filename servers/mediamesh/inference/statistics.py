"""What a model did, counted in Triton's terms, for ModelStatistics and as metrics."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from opentelemetry import metrics

from mediamesh.api.inference.v2 import inference_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from opentelemetry.metrics import CallbackOptions

__all__ = ["Run", "Served", "Statistics"]

_METER = metrics.get_meter("mediamesh.inference")
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
_REASONS = ("cancelled", "expired", "refused")


class Served(Protocol):
    """A request that ran: how many items it had, and when it arrived by ``time.monotonic_ns``."""

    items: int
    arrived: int


class Run(NamedTuple):
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


@dataclass(slots=True)
class _Sum:
    """How often something took place, and nanoseconds in all."""

    count: int = 0
    ns: int = 0

    def add(self, nanoseconds: int, count: int = 1) -> None:
        # Triton counts the whole stage for each request of a batch.
        self.count += count
        self.ns += count * nanoseconds

    def message(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=self.ns)


@dataclass(slots=True)
class _Size:
    """The runs of one batch size."""

    compute_input: _Sum = field(default_factory=_Sum)
    compute_infer: _Sum = field(default_factory=_Sum)
    compute_output: _Sum = field(default_factory=_Sum)


class Statistics:
    """Counters of one version of a model; written in the event loop only.

    They are plain numbers, which metrics read when somebody asks for them: a message or an instrument of OpenTelemetry
    for each request costs as much as running a small model.

    Args:
        name: The model.
        version: Its version.
        tags: More labels of its metrics.
    """

    def __init__(self, name: str, version: str, tags: Mapping[str, str] | None = None) -> None:
        self.run_seconds = 0.0
        self.waiting: Callable[[], int] = int
        self._name = name
        self._version = version
        self.labels = {**(tags or {}), "model": name, "version": version}
        self._success, self._fail = _Sum(), _Sum()
        self._stages = {stage: _Sum() for stage in _STAGES}
        self._sizes: dict[int, _Size] = {}
        self._dropped: dict[str, int] = dict.fromkeys(_REASONS, 0)
        self._last = self._items = self._runs = 0
        _ALL.add(self)

    def snapshot(self) -> pb.ModelStatistics:
        """Return the counters."""
        stages = {stage: spent.message() for stage, spent in self._stages.items()}
        return pb.ModelStatistics(
            name=self._name,
            version=self._version,
            last_inference=self._last,
            inference_count=self._items,
            execution_count=self._runs,
            inference_stats=pb.InferStatistics(success=self._success.message(), fail=self._fail.message(), **stages),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=items,
                    compute_input=size.compute_input.message(),
                    compute_infer=size.compute_infer.message(),
                    compute_output=size.compute_output.message(),
                )
                for items, size in self._sizes.items()
            ],
        )

    def dropped(self, reason: str, waited: int = 0) -> None:
        """Count a request that did not run: ``cancelled``, ``expired`` or ``refused``, after so many nanoseconds."""
        self._dropped[reason] += 1
        self._fail.add(waited)

    def failed(self, requests: Iterable[Served], ended: int) -> None:
        """Count requests that ran, or would have run, and failed."""
        for request in requests:
            self._fail.add(ended - request.arrived)

    def failed_alone(self, spent: int) -> None:
        """Count a request that never waited and failed after so many nanoseconds."""
        self._fail.add(spent)

    def ran(self, batch: Sequence[Served], run: Run) -> None:
        """Count a batch that succeeded."""
        items = 0
        queue, success = self._stages["queue"], self._success
        for request in batch:
            items += request.items
            queue.add(run.taken - request.arrived)
            success.add(run.ended - request.arrived)
        self._count_run(items, len(batch), run)

    def ran_alone(self, items: int, run: Run) -> None:
        """Count a request that never waited."""
        self._stages["queue"].add(0)
        self._success.add(run.ended - run.taken)
        self._count_run(items, 1, run)

    def totals(self) -> Mapping[str, float]:
        """Return the counters that are metrics, by the names of those."""
        return {
            "requests": self._success.count,
            "failures": self._fail.count,
            "items": self._items,
            "executions": self._runs,
            "request_seconds": self._success.ns / 1e9,
            **{f"{stage}_seconds": spent.ns / 1e9 for stage, spent in self._stages.items()},
        }

    def drops(self) -> Mapping[str, int]:
        """Return how many requests never ran, by reason."""
        return self._dropped

    def _count_run(self, items: int, requests: int, run: Run) -> None:
        spent = (run.joined - run.taken, run.ran - run.joined, run.ended - run.ran)
        self._last = time.time_ns() // 1_000_000
        self._items += items
        self._runs += 1
        stages, size = self._stages, self._sizes.get(items)
        if size is None:
            size = self._sizes[items] = _Size()
        stages["compute_input"].add(spent[0], requests)
        stages["compute_infer"].add(spent[1], requests)
        stages["compute_output"].add(spent[2], requests)
        size.compute_input.add(spent[0])
        size.compute_infer.add(spent[1])
        size.compute_output.add(spent[2])
        seconds = spent[1] / 1e9
        self.run_seconds = 0.9 * self.run_seconds + 0.1 * seconds if self.run_seconds else seconds


_ALL: weakref.WeakSet[Statistics] = weakref.WeakSet()
_TOTALS = {
    "requests": "Requests that succeeded.",
    "failures": "Requests that failed, those included that never ran.",
    "items": "Items of the requests that succeeded.",
    "executions": "Runs of the model; one can serve several requests.",
    "request_seconds": "From arrival to answer, all requests that succeeded.",
    "queue_seconds": "Waited for a worker, all requests that ran.",
    "compute_input_seconds": "Putting inputs together, counted for each request of a run.",
    "compute_infer_seconds": "Running the model, counted for each request of a run.",
    "compute_output_seconds": "Taking outputs apart, counted for each request of a run.",
}


def _total(name: str) -> Callable[[CallbackOptions], Iterator[metrics.Observation]]:
    def read(_options: CallbackOptions) -> Iterator[metrics.Observation]:
        for statistics in list(_ALL):
            yield metrics.Observation(statistics.totals()[name], statistics.labels)

    return read


def _drops(_options: CallbackOptions) -> Iterator[metrics.Observation]:
    for statistics in list(_ALL):
        for reason, count in statistics.drops().items():
            yield metrics.Observation(count, {**statistics.labels, "reason": reason})


def _waiting(_options: CallbackOptions) -> Iterator[metrics.Observation]:
    for statistics in list(_ALL):
        yield metrics.Observation(statistics.waiting(), statistics.labels)


for _name, _text in _TOTALS.items():
    _METER.create_observable_counter(f"mediamesh_inference_{_name}", [_total(_name)], description=_text)
_METER.create_observable_counter(
    "mediamesh_inference_dropped", [_drops], description="Requests that never ran: cancelled, expired or refused."
)
_METER.create_observable_gauge("mediamesh_inference_waiting", [_waiting], description="Requests that wait.")
