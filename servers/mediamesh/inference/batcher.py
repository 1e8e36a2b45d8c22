"""Runs a model: one queue, and worker threads that take what is queued, without ever waiting for more.

Why so: docs/decisions/0007-inference-batching.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from mediamesh.inference.batch import Staging, split
from mediamesh.inference.queue import Queue, Ticket
from mediamesh.inference.statistics import Run, Statistics
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    import numpy as np

    from mediamesh.inference.scheduling import Call
    from mediamesh.inference.session import Session

    Array = np.ndarray[Any, Any]
    Answer = asyncio.Future[list[Array]]
    _Outcome = tuple[list[list[Array]], Run]

__all__ = ["Batcher", "batching"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.inference")
_SHORTEST_RETRY_SECONDS = 0.05


@asynccontextmanager
async def batching(
    label: str, sessions: Sequence[Session], queue: Queue, statistics: Statistics
) -> AsyncGenerator[Batcher]:
    """Run a worker thread for every session; at the end what waits is refused and what runs is finished."""
    batcher = Batcher(label, queue, statistics, workers=len(sessions))
    threads = [
        threading.Thread(target=batcher.work, args=(session,), name=f"{label}#{number}", daemon=True)
        for number, session in enumerate(sessions)
    ]
    for thread in threads:
        thread.start()
    try:
        yield batcher
    finally:
        batcher.close()
        for thread in threads:
            await asyncio.to_thread(thread.join)


class Batcher:
    """The way of requests into a model and of its answers back; all but :meth:`work` belongs to the event loop."""

    def __init__(self, label: str, queue: Queue, statistics: Statistics, *, workers: int) -> None:
        self.statistics = statistics
        self._label = label
        self._queue = queue
        self._workers = workers
        self._loop = asyncio.get_running_loop()

    async def run(self, call: Call) -> list[Array]:
        """Run a request with whatever else is queued."""
        return await self.submit(call.inputs, call.outputs, items=call.items, seconds=call.seconds)

    async def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Run a request; an ONNX graph gives one answer."""
        yield await self.run(call)

    def submit(
        self, inputs: Mapping[str, Array], outputs: tuple[str, ...], *, items: int, seconds: float | None
    ) -> Answer:
        """Queue a request; cancelling the answer takes it out again, as long as it does not run.

        Args:
            inputs: Tensors by name; must not change until the answer is there.
            outputs: Names of the wanted outputs.
            items: Size of the batch dimension; 1 for a model that has none.
            seconds: Longest time in the queue.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: there is no time left.
            Unavailable: the model is being unloaded.
        """
        answer: Answer = self._loop.create_future()
        span = trace.get_current_span().get_span_context()
        ticket = Ticket(inputs, outputs, items, answer, span if span.trace_flags.sampled else None)
        if seconds is not None and seconds <= 0:
            self.statistics.dropped("expired")
            raise self._expiry(0)
        try:
            self._queue.put(ticket, retry_after=self._backlog_seconds())
        except Overloaded:
            self.statistics.dropped("refused")
            raise
        timer = self._loop.call_later(seconds, self._expire, ticket) if seconds is not None else None
        answer.add_done_callback(partial(self._done, ticket, timer))
        return answer

    def close(self) -> None:
        """Refuse what waits, and let the workers end."""
        left = self._queue.close()
        self.statistics.failed(left, time.monotonic_ns())
        for ticket in left:
            if not ticket.answer.done():
                ticket.answer.set_exception(Unavailable(f"Model {self._label} is being unloaded."))

    def work(self, session: Session) -> None:
        """Run batches until the queue is closed; the body of a worker thread."""
        staging = Staging()
        while batch := self._queue.take():
            outcome = self._run(session, staging, batch)
            if isinstance(outcome, MeshError) and len(batch) > 1:
                # One request may have spoilt it for all; alone, each gets what it deserves.
                for ticket in batch:
                    self._report([ticket], self._run(session, staging, [ticket]))
            else:
                self._report(batch, outcome)

    def _run(self, session: Session, staging: Staging, batch: list[Ticket]) -> _Outcome | MeshError:
        taken = time.monotonic_ns()
        try:
            with self._span(batch):
                inputs = staging.join(batch)
                joined = time.monotonic_ns()
                outputs = session.run(inputs, batch[0].outputs)
                ran = time.monotonic_ns()
            shares = split(self._label, batch, outputs)
            return shares, Run(taken, joined, ran, time.monotonic_ns())
        except MeshError as error:
            return error
        except Exception:  # noqa: BLE001 - a worker outlives whatever a batch does to it
            _LOG.exception("model %s failed", self._label)
            return MeshError(f"Model {self._label} failed; the server's log has the cause.")

    def _report(self, batch: list[Ticket], outcome: _Outcome | MeshError) -> None:
        self._loop.call_soon_threadsafe(self._settle, batch, outcome)

    def _settle(self, batch: list[Ticket], outcome: _Outcome | MeshError) -> None:
        if isinstance(outcome, MeshError):
            self.statistics.failed(batch, time.monotonic_ns())
            for ticket in batch:
                if not ticket.answer.done():  # else its caller left while it ran
                    ticket.answer.set_exception(outcome)
            return
        shares, run = outcome
        self.statistics.ran(batch, run)
        for ticket, share in zip(batch, shares, strict=True):
            if not ticket.answer.done():
                ticket.answer.set_result(share)

    def _span(self, batch: list[Ticket]) -> Any:
        links = [trace.Link(ticket.span) for ticket in batch if ticket.span is not None]
        if not links:
            return trace.use_span(trace.INVALID_SPAN)
        parent = trace.set_span_in_context(trace.NonRecordingSpan(links[0].context))
        return _TRACER.start_as_current_span(
            "inference batch",
            context=parent,
            links=links[1:],
            attributes={"model": self._label, "items": sum(ticket.items for ticket in batch)},
        )

    def _done(self, ticket: Ticket, timer: asyncio.TimerHandle | None, answer: Answer) -> None:
        if timer is not None:
            timer.cancel()
        if answer.cancelled() and self._queue.withdraw(ticket):
            self.statistics.dropped("cancelled", time.monotonic_ns() - ticket.arrived)

    def _expire(self, ticket: Ticket) -> None:
        if not ticket.answer.done() and self._queue.withdraw(ticket):
            waited = time.monotonic_ns() - ticket.arrived
            self.statistics.dropped("expired", waited)
            ticket.answer.set_exception(self._expiry(waited))

    def _expiry(self, waited: int) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The deadline passed after {waited / 1e9:.3f} s in the queue of model {self._label}.", model=self._label
        )

    def _backlog_seconds(self) -> float:
        return max(_SHORTEST_RETRY_SECONDS, len(self._queue) * self.statistics.run_seconds / self._workers)
