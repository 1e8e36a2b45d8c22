"""What a generative model did, counted in Triton's terms, and as metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.inference.v2 import inference_service_pb2 as pb

if TYPE_CHECKING:
    from mediamesh.inference.generation.engine import Step
    from mediamesh.inference.generation.job import Job

__all__ = ["GenerationCounters"]

_METER = metrics.get_meter("mediamesh.inference")
_PROMPT = _METER.create_counter("mediamesh_generation_prompt_tokens", description="Prompt tokens that were read.")
_GENERATED = _METER.create_counter("mediamesh_generation_tokens", description="Tokens that were generated.")
_FIRST = _METER.create_histogram(
    "mediamesh_generation_first_token",
    unit="s",
    description="Time from a request's arrival to its first token.",
    explicit_bucket_boundaries_advisory=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
)
_STEP = _METER.create_histogram(
    "mediamesh_generation_step",
    unit="s",
    description="Time in which the running batch got one token each.",
    explicit_bucket_boundaries_advisory=[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
)
_BATCH = _METER.create_histogram(
    "mediamesh_generation_batch",
    description="Requests in one step of the running batch.",
    explicit_bucket_boundaries_advisory=[1, 2, 4, 8, 16, 32, 64, 128],
)
_CACHE = _METER.create_gauge("mediamesh_generation_cache", unit="By", description="Memory that keys and values take.")
_DROPPED = _METER.create_counter(
    "mediamesh_generation_dropped", description="Requests without a whole answer: cancelled, expired, refused, failed."
)
_FIRST_RESPONSE = "0"


class GenerationCounters:
    """Counters of one version of a model; used in the event loop only.

    Of Triton's counters, ``success`` is a whole answer and its time, ``queue`` the wait for a row of the cache,
    ``compute_input`` the reading of prompts, ``compute_infer`` the steps; ``batch_stats`` has the steps by occupancy,
    ``execution_count`` all of them, and ``response_stats["0"]`` the time to the first token.

    Args:
        name: Name of the model.
        version: Its version.
        token_bytes: What a token takes in the cache.
    """

    def __init__(self, name: str, version: str, token_bytes: int) -> None:
        self._counters = pb.ModelStatistics(name=name, version=version)
        self._labels = {"model": name, "version": version}
        self._token_bytes = token_bytes
        self._by_batch: dict[int, pb.InferBatchStatistics] = {}
        self.request_seconds = 0.0

    def snapshot(self) -> pb.ModelStatistics:
        """Return a copy of the counters."""
        copy = pb.ModelStatistics()
        copy.CopyFrom(self._counters)
        return copy

    def dropped(self, reason: str, job: Job | None = None) -> None:
        """Count a request that got no whole answer: ``cancelled``, ``expired``, ``refused`` or ``failed``."""
        _DROPPED.add(1, {**self._labels, "reason": reason})
        counter = self._counters.inference_stats
        _add(counter.fail, time.monotonic() - job.arrived if job is not None else 0)
        if reason == "cancelled":
            _add(self._counters.response_stats[_FIRST_RESPONSE].cancel, 0)

    def began(self, job: Job) -> None:
        """Count a request's first token."""
        waited = time.monotonic() - job.arrived
        _FIRST.record(waited, self._labels)
        _add(self._counters.inference_stats.queue, job.joined - job.arrived)
        _add(self._counters.response_stats[_FIRST_RESPONSE].success, waited)

    def finished(self, job: Job) -> None:
        """Count a whole answer."""
        seconds = time.monotonic() - job.arrived
        running = time.monotonic() - job.joined
        self.request_seconds = 0.9 * self.request_seconds + 0.1 * running if self.request_seconds else running
        self._counters.inference_count += 1
        self._counters.last_inference = time.time_ns() // 1_000_000
        _add(self._counters.inference_stats.success, seconds)

    def stepped(self, step: Step) -> None:
        """Count a step."""
        _CACHE.set(step.cached * self._token_bytes, self._labels)
        if step.prompt_tokens:
            _PROMPT.add(step.prompt_tokens, self._labels)
            _add(self._counters.inference_stats.compute_input, step.seconds)
        if tokens := sum(piece.token is not None for piece in step.pieces):
            _GENERATED.add(tokens, self._labels)
        if step.batch:
            _STEP.record(step.seconds, self._labels)
            _BATCH.record(step.batch, self._labels)
            self._counters.execution_count += 1
            _add(self._counters.inference_stats.compute_infer, step.seconds)
            _add(self._of_batch(step.batch).compute_infer, step.seconds)

    def _of_batch(self, size: int) -> pb.InferBatchStatistics:
        if size not in self._by_batch:
            self._by_batch[size] = self._counters.batch_stats.add(batch_size=size)
        return self._by_batch[size]


def _add(counter: pb.StatisticDuration, seconds: float) -> None:
    counter.count += 1
    counter.ns += round(seconds * 1e9)
