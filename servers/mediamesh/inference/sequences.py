"""Runs models with state: the requests of a sequence one after the other, those of different sequences side by side.

It stands before the batcher, which never sees two requests of one sequence at once, and adds what the server feeds: the
control inputs and the states. A sequence that is in progress has a slot; others wait until one is free.

A sequence has no holes. A request that was refused or that failed has changed nothing, and its caller may send it
again. One that was taken and then left the queue, as its time was up or its caller gone, ends its sequence: what comes
behind would be answered from a state that it should have changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics

from mediamesh.wire.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    MeshError,
    Overloaded,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    import numpy as np

    from mediamesh.inference.batcher import Batcher
    from mediamesh.inference.scheduling import Call, SequenceMark
    from mediamesh.inference.sequence_config import SequenceConfig
    from mediamesh.inference.statistics import Statistics

    Array = np.ndarray[Any, Any]

__all__ = ["Limits", "SequenceScheduler", "sequencing"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.inference")
_ACTIVE = _METER.create_up_down_counter(
    "mediamesh_inference_sequences", description="Sequences in progress, and those that wait for a slot."
)
_ENDED = _METER.create_counter(
    "mediamesh_inference_sequences_ended", description="Sequences that have ended, by reason."
)
_SHORTEST_RETRY_SECONDS = 0.05
# Ended sequences whose reason is remembered, for whoever sends one more request.
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be held for one model.

    Attributes:
        slots: Sequences in progress.
        requests: Requests that wait for those before them, or for a slot.
        size: Bytes of their tensors.
    """

    slots: int
    requests: int
    size: int


@asynccontextmanager
async def sequencing(
    label: str, batcher: Batcher, config: SequenceConfig, limits: Limits
) -> AsyncGenerator[SequenceScheduler]:
    """Run sequences for as long as the block lasts; at the end what waits is refused.

    Args:
        label: What errors call the model.
        batcher: Runs the requests.
        config: How sequences are run.
        limits: What may be held.
    """
    scheduler = SequenceScheduler(label, batcher, config, limits)
    try:
        yield scheduler
    finally:
        scheduler.close()


@dataclass(slots=True, eq=False)
class _Sequence:
    """One sequence, from its start to its end.

    Attributes:
        key: What its callers call it.
        state: The tensors kept; None before its first request has run.
        has_slot: It is in progress.
        busy: One of its requests runs, or is about to.
        closing: Its last request has come.
        ended: Why it takes no more; empty as long as it does.
        turns: The requests that wait, in order.
    """

    key: int | str
    state: list[Array] | None = None
    has_slot: bool = False
    busy: bool = False
    closing: bool = False
    ended: str = ""
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)


class SequenceScheduler:
    """The sequences of one version of a model; belongs to the event loop."""

    def __init__(self, label: str, batcher: Batcher, config: SequenceConfig, limits: Limits) -> None:
        self._label = label
        self._batcher = batcher
        self._controls = config.controls
        self._states = config.states
        self._initial = [state.initial for state in config.states]
        self._idle_seconds = config.idle_seconds
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._live: dict[int | str, _Sequence] = {}
        self._in_progress: set[_Sequence] = set()
        self._backlog: OrderedDict[_Sequence, None] = OrderedDict()
        # Those without a request, by the time of their last, which is the order in which they got here.
        self._idle: OrderedDict[_Sequence, float] = OrderedDict()
        self._reaper: asyncio.TimerHandle | None = None
        self._why: OrderedDict[int | str, str] = OrderedDict()
        self._waiting = self._waiting_bytes = 0
        self._closed = False
        self._labels = {"active": self._label_set("active"), "waiting": self._label_set("waiting")}
        queued = self.statistics.waiting
        self.statistics.waiting = lambda: queued() + self._waiting

    @property
    def statistics(self) -> Statistics:
        """The model's counters."""
        return self._batcher.statistics

    async def run(self, call: Call) -> list[Array]:
        """Run a request after those before it of its sequence.

        Raises:
            InvalidRequest: it names no sequence, or one that has not started; or what the batcher raises.
            FailedPrecondition: its sequence was ended while it waited.
            Overloaded: too much waits.
            DeadlineExceeded: the time passed before it ran.
            Unavailable: the model is being unloaded.
            MeshError: the model failed.
        """
        sequence = self._admit(call)
        turn: asyncio.Future[None] | None = None
        began = time.monotonic_ns()
        try:
            if sequence.busy or not sequence.has_slot:
                turn = self._loop.create_future()
                await self._wait(sequence, turn, call)
                if sequence.ended:
                    raise self._ending(sequence)
            else:
                sequence.busy = True
            return await self._step(sequence, call, (time.monotonic_ns() - began) / 1e9)
        except asyncio.CancelledError:
            if turn is not None and turn.cancelled():
                self.statistics.dropped("cancelled", time.monotonic_ns() - began)
            self._end(sequence, "dropped", "a request of it was cancelled")
            raise
        except DeadlineExceeded:
            self._end(sequence, "dropped", "the time of one of its requests was up before it ran")
            raise
        finally:
            if turn is None or _is_given(turn):
                self._release(sequence)

    async def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Run a request; an ONNX graph gives one answer."""
        yield await self.run(call)

    def close(self) -> None:
        """End all sequences; what waits is refused."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for sequence in (*self._in_progress, *self._backlog):
            self._end(sequence, "unloaded", "the model is being unloaded")

    async def _step(self, sequence: _Sequence, call: Call, waited: float) -> list[Array]:
        """Run a request whose turn it is, and keep the states that it gives."""
        mark = _mark(call)
        state = self._initial if mark.start or sequence.state is None else sequence.state
        inputs = {**call.inputs, **self._controls.feeds(mark)}
        inputs.update(zip((own.takes for own in self._states), state, strict=True))
        kept = [own.gives for own in self._states]
        outputs = (*call.outputs, *(name for name in kept if name not in call.outputs))
        left = None if call.seconds is None else call.seconds - waited
        try:
            arrays = await self._batcher.run(
                replace(call, inputs=inputs, outputs=outputs, seconds=left, deadline=left, timeout=0.0)
            )
        except DeadlineExceeded:
            raise
        except MeshError:
            if mark.start:
                self._end(sequence, "failed", "its first request failed")
            raise
        by_name = dict(zip(outputs, arrays, strict=True))
        # A request's rows of a batch would keep the whole batch in memory.
        sequence.state = [_own(by_name[name]) for name in kept]
        return arrays[: len(call.outputs)]

    def _admit(self, call: Call) -> _Sequence:
        """Return the sequence of a request, which has a place in it from here on."""
        mark = _mark(call) if call.sequence is not None else None
        if mark is None:
            raise self._invalid("sequence_id", "is missing: every request to it belongs to a sequence")
        if self._closed:
            raise Unavailable(f"Model {self._label} is being unloaded.")
        if call.items != 1:
            raise InvalidRequest.of_field(
                "inputs",
                f"model {self._label}: the batch has {call.items} items, expected 1, as a request is one of a sequence",
                model=self._label,
            )
        self._controls.check(mark.key)
        sequence = self._live.get(mark.key)
        if sequence is None and not mark.start:
            before = f"; the one before was ended: {self._why[mark.key]}" if mark.key in self._why else ""
            raise self._invalid(
                "sequence_start",
                f"sequence {mark.key!r} must specify the START flag on the first request of the sequence{before}",
            )
        has_slot = sequence.has_slot if sequence is not None else len(self._in_progress) < self._limits.slots
        if not has_slot or (sequence is not None and sequence.busy):
            self._check_room(call)
        if sequence is None:
            sequence = self._open(mark.key, has_slot=has_slot)
        self._idle.pop(sequence, None)
        if mark.end:
            sequence.closing = True
            del self._live[mark.key]
        return sequence

    def _check_room(self, call: Call) -> None:
        retry = max(_SHORTEST_RETRY_SECONDS, self._waiting * self.statistics.run_seconds)
        most, size = self._limits.requests, _size(call)
        if self._waiting >= most:
            self.statistics.dropped("refused")
            text = f"{self._waiting} requests wait for sequences of model {self._label}, which is its limit."
            raise Overloaded.retry(text, retry, limit_requests=most)
        if self._waiting and self._waiting_bytes + size > self._limits.size:
            self.statistics.dropped("refused")
            text = f"{self._waiting_bytes} bytes wait for sequences of model {self._label}; {size} more pass its limit."
            raise Overloaded.retry(text, retry, limit_bytes=self._limits.size)

    def _open(self, key: int | str, *, has_slot: bool) -> _Sequence:
        sequence = self._live[key] = _Sequence(key, has_slot=has_slot)
        self._why.pop(key, None)
        if has_slot:
            self._in_progress.add(sequence)
        else:
            self._backlog[sequence] = None
        _ACTIVE.add(1, self._labels["active" if has_slot else "waiting"])
        return sequence

    async def _wait(self, sequence: _Sequence, turn: asyncio.Future[None], call: Call) -> None:
        """Wait until it is a request's turn in its sequence."""
        size = _size(call)
        sequence.turns.append(turn)
        self._waiting += 1
        self._waiting_bytes += size
        limit = call.seconds
        timer = self._loop.call_later(limit, self._expire, turn, limit) if limit is not None else None
        try:
            await turn
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting -= 1
            self._waiting_bytes -= size

    def _expire(self, turn: asyncio.Future[None], seconds: float) -> None:
        if not turn.done():
            self.statistics.dropped("expired", round(seconds * 1e9))
            text = f"The deadline passed after {seconds:.3f} s in a sequence of model {self._label}."
            turn.set_exception(DeadlineExceeded(text, model=self._label))

    def _release(self, sequence: _Sequence) -> None:
        """Give the turn to the next request of a sequence."""
        sequence.busy = False
        if sequence.ended:
            self._leave(sequence)
        elif not self._next(sequence):
            if sequence.closing:
                self._end(sequence, "finished", "its last request has been answered")
            else:
                self._idle[sequence] = self._loop.time()
                self._plan_reaping()

    def _next(self, sequence: _Sequence) -> bool:
        while sequence.turns:
            turn = sequence.turns.popleft()
            if not turn.done():
                sequence.busy = True
                turn.set_result(None)
                return True
        return False

    def _end(self, sequence: _Sequence, reason: str, why: str) -> None:
        """Let a sequence take no more, refuse what waits in it, and free its slot once nothing of it runs."""
        if sequence.ended:
            return
        sequence.ended = why
        self._idle.pop(sequence, None)
        if self._live.get(sequence.key) is sequence:
            del self._live[sequence.key]
            self._remember(sequence.key, why)
        _ENDED.add(1, {**self.statistics.labels, "reason": reason})
        for turn in sequence.turns:
            if not turn.done():
                self.statistics.dropped("cancelled")
                turn.set_exception(self._ending(sequence))
        sequence.turns.clear()
        if not sequence.busy:
            self._leave(sequence)

    def _ending(self, sequence: _Sequence) -> MeshError:
        if self._closed:
            return Unavailable(f"Model {self._label} is being unloaded.")
        text = f"Sequence {sequence.key!r} of model {self._label} was ended: {sequence.ended}. Start it again."
        return FailedPrecondition(text, model=self._label)

    def _leave(self, sequence: _Sequence) -> None:
        """Take out a sequence of which nothing runs, and let one that waits have its slot."""
        if sequence in self._backlog:
            del self._backlog[sequence]
            _ACTIVE.add(-1, self._labels["waiting"])
            return
        if sequence not in self._in_progress:
            return
        self._in_progress.discard(sequence)
        sequence.state = None
        _ACTIVE.add(-1, self._labels["active"])
        if self._backlog and not self._closed:
            after, _ = self._backlog.popitem(last=False)
            after.has_slot = True
            self._in_progress.add(after)
            _ACTIVE.add(-1, self._labels["waiting"])
            _ACTIVE.add(1, self._labels["active"])
            self._next(after)

    def _plan_reaping(self) -> None:
        if self._reaper is None and self._idle and not self._closed:
            oldest = next(iter(self._idle.values()))
            self._reaper = self._loop.call_at(oldest + self._idle_seconds, self._reap)

    def _reap(self) -> None:
        """End the sequences that have been idle for too long."""
        self._reaper = None
        due = self._loop.time() - self._idle_seconds
        while self._idle and next(iter(self._idle.values())) <= due:
            sequence, _ = self._idle.popitem(last=False)
            _LOG.info("model %s ended sequence %r, which was idle", self._label, sequence.key)
            self._end(sequence, "idle", f"it was idle for {self._idle_seconds:g} s")
        self._plan_reaping()

    def _remember(self, key: int | str, why: str) -> None:
        self._why[key] = why
        if len(self._why) > _REMEMBERED:
            self._why.popitem(last=False)

    def _label_set(self, state: str) -> Mapping[str, str]:
        return {**self.statistics.labels, "state": state}

    def _invalid(self, parameter: str, text: str) -> InvalidRequest:
        return InvalidRequest.of_field(f"parameters[{parameter}]", f"model {self._label}: {text}", model=self._label)


def _mark(call: Call) -> SequenceMark:
    assert call.sequence is not None  # noqa: S101 - a request without is refused when it is admitted
    return call.sequence


def _is_given(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None


def _own(array: Array) -> Array:
    return array if array.base is None else array.copy()


def _size(call: Call) -> int:
    return sum(tensor.nbytes for tensor in call.inputs.values())
