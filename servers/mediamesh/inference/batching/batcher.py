"""Runs a model: one queue, and worker threads that take what is queued, waiting for more only where they are told to.

Why so: docs/decisions/0007-inference-batching.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from mediamesh.inference.batching.batch import Staging, split
from mediamesh.inference.batching.order import Order
from mediamesh.inference.batching.queue import Queue
from mediamesh.inference.batching.tickets import Ticket
from mediamesh.inference.statistics import Run, Statistics
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    import numpy as np

    from mediamesh.inference.batching.pace import Here, Pace
    from mediamesh.inference.scheduling import Call, Executor

    Array = np.ndarray[Any, Any]
    _Outcome = tuple[list[list[Array]], Run]

__all__ = ["Batcher", "batching"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.inference")
_SHORTEST_RETRY_SECONDS = 0.05


@asynccontextmanager
async def batching(
    label: str, sessions: Sequence[Executor], queue: Queue, statistics: Statistics, pace: Pace | None = None
) -> AsyncGenerator[Batcher]:
    """Run a worker thread for every session; at the end what waits is refused and what runs is finished.

    Args:
        label: What errors call the model.
        sessions: One for each worker.
        queue: The requests that wait.
        statistics: The model's counters.
        pace: What was measured at load; nothing leaves all runs to the workers.
    """
    batcher = Batcher(label, queue, statistics, sessions, pace)
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

    def __init__(
        self, label: str, queue: Queue, statistics: Statistics, sessions: Sequence[Executor], pace: Pace | None
    ) -> None:
        self.statistics = statistics
        statistics.waiting = queue.__len__
        self._label = label
        self._queue = queue
        self._workers = len(sessions)
        self._loop = asyncio.get_running_loop()
        self._here = pace.here(sessions[0]) if pace is not None else None
        self._wide = pace.wide if pace is not None else None
        self._staging = Staging()
        self._order = Order() if queue.policy.in_order else None
        self._finished: deque[tuple[list[Ticket], _Outcome | MeshError]] = deque()
        self._is_settling = False
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def run(self, call: Call) -> list[Array]:
        """Run a request with whatever else is queued, or at once where that costs less than to hand it over."""
        here = self._here
        if here is not None and not len(self._queue) and not self._order and here.takes(call) and not self._closed:
            return self._run_here(here, call)
        return await self.submit(call)

    async def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Run a request; an ONNX graph gives one answer."""
        yield await self.run(call)

    def submit(self, call: Call) -> asyncio.Future[list[Array]]:
        """Queue a request; cancelling the answer takes it out again, as long as it does not run.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: there is no time left.
            Unavailable: the model is being unloaded.
        """
        answer: asyncio.Future[list[Array]] = self._loop.create_future()
        now = time.monotonic_ns()
        if call.deadline is not None and call.deadline <= 0:
            self.statistics.dropped("expired")
            raise self._expiry(0)
        ticket = Ticket(
            call.inputs,
            call.outputs,
            call.items,
            answer,
            level=self._queue.policy.level_of(call.priority),
            timeout=int(call.timeout * 1e9),
            deadline=now + int(call.deadline * 1e9) if call.deadline is not None else 0,
            span=_sampled_span(),
            arrived=now,
        )
        try:
            self._queue.put(ticket, retry_after=self._backlog_seconds())
        except Overloaded:
            self.statistics.dropped("refused")
            raise
        if self._order is not None:
            self._order.enter(answer)
        self._plan_sweep()
        answer.add_done_callback(partial(self._done, ticket))
        return answer

    def close(self) -> None:
        """Refuse what waits, and let the workers end."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        left = self._queue.close()
        self.statistics.failed(left, time.monotonic_ns())
        for ticket in left:
            self._answer(ticket, Unavailable(f"Model {self._label} is being unloaded."))

    def work(self, session: Executor) -> None:
        """Run batches until the queue is closed; the body of a worker thread."""
        staging = Staging()
        while batch := self._queue.take():
            # Alone on the machine, a run may have all of its cores.
            chosen = self._wide if self._wide is not None and self._queue.is_quiet(self._workers) else session
            outcome = self._run(chosen, staging, batch)
            if isinstance(outcome, MeshError) and len(batch) > 1:
                # One request may have spoilt it for all; alone, each gets what it deserves.
                for ticket in batch:
                    self._report([ticket], self._run(session, staging, [ticket]))
            else:
                self._report(batch, outcome)

    def _run_here(self, here: Here, call: Call) -> list[Array]:
        """Run a request in the event loop: for a small model the way to a thread and back costs more than the run."""
        if call.deadline is not None and call.deadline <= 0:
            self.statistics.dropped("expired")
            raise self._expiry(0)
        taken = time.monotonic_ns()
        try:
            with _span(self._label, [_sampled_span()], call.items):
                inputs = self._staging.aligned(call.inputs)
                joined = time.monotonic_ns()
                outputs = here.session.run(inputs, call.outputs)
        except MeshError:
            self.statistics.failed_alone(time.monotonic_ns() - taken)
            raise
        ran = time.monotonic_ns()
        self.statistics.ran_alone(call.items, Run(taken, joined, ran, ran))
        here.note(ran - joined, call.items)
        return outputs

    def _run(self, session: Executor, staging: Staging, batch: list[Ticket]) -> _Outcome | MeshError:
        taken = time.monotonic_ns()
        try:
            with _span(self._label, [ticket.span for ticket in batch], sum(ticket.items for ticket in batch)):
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
        self._finished.append((batch, outcome))
        if not self._is_settling:  # else the loop is on its way, and takes this along
            self._is_settling = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._is_settling = False
        while self._finished:
            batch, outcome = self._finished.popleft()
            if isinstance(outcome, MeshError):
                self.statistics.failed(batch, time.monotonic_ns())
                for ticket in batch:
                    self._answer(ticket, outcome)
                continue
            shares, run = outcome
            self.statistics.ran(batch, run)
            for ticket, share in zip(batch, shares, strict=True):
                self._answer(ticket, share)

    def _answer(self, ticket: Ticket, outcome: list[Array] | MeshError) -> None:
        if self._order is not None:
            self._order.settle(ticket.answer, outcome)
        elif ticket.answer.done():  # its caller left while it ran
            return
        elif isinstance(outcome, MeshError):
            ticket.answer.set_exception(outcome)
        else:
            ticket.answer.set_result(outcome)

    def _done(self, ticket: Ticket, answer: asyncio.Future[list[Array]]) -> None:
        if not answer.cancelled():
            return
        if self._queue.withdraw(ticket):
            self.statistics.dropped("cancelled", time.monotonic_ns() - ticket.arrived)
        if self._order is not None:
            self._order.leave(answer)

    def _plan_sweep(self) -> None:
        """See to it that what waits too long is answered then; one timer serves all."""
        due = self._queue.next_expiry()
        if due is None:
            return
        at = self._loop.time() + max(0, due - time.monotonic_ns()) / 1e9
        if self._sweep is None or at < self._sweep.when():
            if self._sweep is not None:
                self._sweep.cancel()
            self._sweep = self._loop.call_at(at, self._sweep_expired)

    def _sweep_expired(self) -> None:
        self._sweep = None
        now = time.monotonic_ns()
        for ticket in self._queue.expired():
            waited = now - ticket.arrived
            self.statistics.dropped("expired", waited)
            self._answer(ticket, self._expiry(waited))
        if not self._closed:
            self._plan_sweep()

    def _expiry(self, waited: int) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The deadline passed after {waited / 1e9:.3f} s in the queue of model {self._label}.", model=self._label
        )

    def _backlog_seconds(self) -> float:
        return max(_SHORTEST_RETRY_SECONDS, len(self._queue) * self.statistics.run_seconds / self._workers)


def _sampled_span() -> trace.SpanContext | None:
    span = trace.get_current_span()
    return span.get_span_context() if span.is_recording() else None


@contextmanager
def _recorded(label: str, contexts: Sequence[trace.SpanContext], items: int) -> Generator[None]:
    parent = trace.set_span_in_context(trace.NonRecordingSpan(contexts[0]))
    with _TRACER.start_as_current_span(
        "inference batch",
        context=parent,
        links=[trace.Link(context) for context in contexts[1:]],
        attributes={"model": label, "items": items},
    ):
        yield


class _Unrecorded:
    """No span; a context manager made of a generator costs more than the rest of a small run."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NO_SPAN = _Unrecorded()


def _span(label: str, spans: Sequence[trace.SpanContext | None], items: int) -> Any:
    contexts = [span for span in spans if span is not None]
    return _recorded(label, contexts, items) if contexts else _NO_SPAN
