"""Runs models with state: the requests of a sequence one after the other, those of different sequences side by side.

It stands before the batcher, which never sees two requests of one sequence at once, and adds what the server feeds: the
control inputs and the states. A sequence that is in progress has a slot; others wait until one is free.

A sequence has no holes. A request that was refused or that failed has changed nothing, and its caller may send it
again. One that was taken and then left the queue, as its time was up or its caller gone, ends its sequence: what comes
behind would be answered from a state that it should have changed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mediamesh.inference.scheduling import size_of
from mediamesh.inference.sequences.slots import Slots
from mediamesh.wire.errors import DeadlineExceeded, InvalidRequest, MeshError, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import numpy as np

    from mediamesh.inference.batching.batcher import Batcher
    from mediamesh.inference.scheduling import Call, SequenceMark
    from mediamesh.inference.sequences.config import SequenceConfig
    from mediamesh.inference.sequences.slots import Sequence
    from mediamesh.inference.statistics import Statistics

    Array = np.ndarray[Any, Any]

__all__ = ["Limits", "SequenceScheduler", "sequencing"]

_SHORTEST_RETRY_SECONDS = 0.05


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


class SequenceScheduler:
    """The sequences of one version of a model; belongs to the event loop."""

    def __init__(self, label: str, batcher: Batcher, config: SequenceConfig, limits: Limits) -> None:
        self.slots = Slots(label, limits.slots, config.idle_seconds, batcher.statistics)
        self._label = label
        self._batcher = batcher
        self._controls = config.controls
        self._states = config.states
        self._initial = [state.initial for state in config.states]
        self._kept = [state.gives for state in config.states]
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting = self._waiting_bytes = 0
        self._closed = False
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
                    raise self.slots.ending(sequence)
            else:
                sequence.busy = True
            return await self._step(sequence, call, (time.monotonic_ns() - began) / 1e9)
        except asyncio.CancelledError:
            if turn is not None and turn.cancelled():
                self.statistics.dropped("cancelled", time.monotonic_ns() - began)
            self.slots.end(sequence, "dropped", "a request of it was cancelled")
            raise
        except DeadlineExceeded:
            self.slots.end(sequence, "dropped", "the time of one of its requests was up before it ran")
            raise
        finally:
            if turn is None or _is_given(turn):
                self.slots.release(sequence)

    async def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Run a request; an ONNX graph gives one answer."""
        yield await self.run(call)

    def close(self) -> None:
        """End all sequences; what waits is refused."""
        self._closed = True
        self.slots.close()

    async def _step(self, sequence: Sequence, call: Call, waited: float) -> list[Array]:
        """Run a request whose turn it is, and keep the states that it gives."""
        mark = _mark(call)
        state = self._initial if mark.start or sequence.state is None else sequence.state
        inputs = {**call.inputs, **self._controls.feeds(mark)}
        inputs.update(zip((own.takes for own in self._states), state, strict=True))
        outputs = (*call.outputs, *(name for name in self._kept if name not in call.outputs))
        left = None if call.seconds is None else call.seconds - waited
        try:
            arrays = await self._batcher.run(
                replace(call, inputs=inputs, outputs=outputs, seconds=left, deadline=left, timeout=0.0)
            )
        except DeadlineExceeded:
            raise
        except MeshError:
            if mark.start:
                self.slots.end(sequence, "failed", "its first request failed")
            elif mark.end:
                self.slots.reopen(sequence)
            raise
        by_name = dict(zip(outputs, arrays, strict=True))
        # A request's rows of a batch would keep the whole batch in memory.
        sequence.state = [_own(by_name[name]) for name in self._kept]
        return arrays[: len(call.outputs)]

    def _admit(self, call: Call) -> Sequence:
        """Return the sequence of a request, which has a place in it from here on."""
        mark = _mark(call) if call.sequence is not None else None
        if mark is None:
            raise self._invalid("sequence_id", "is missing: every request to it belongs to a sequence")
        if self._closed:
            raise self.slots.unloaded()
        if call.items != 1:
            raise InvalidRequest.of_field(
                "inputs",
                f"model {self._label}: the batch has {call.items} items, expected 1, as a request is one of a sequence",
                model=self._label,
            )
        self._controls.check(mark.key)
        sequence = self.slots.find(mark.key)
        if sequence is None and not mark.start:
            why = self.slots.why_ended(mark.key)
            before = f"; the one before was ended: {why}" if why else ""
            raise self._invalid(
                "sequence_start",
                f"sequence {mark.key!r} must specify the START flag on the first request of the sequence{before}",
            )
        if self.slots.full if sequence is None else (sequence.busy or not sequence.has_slot):
            self._check_room(call)
        if sequence is None:
            sequence = self.slots.open(mark.key)
        self.slots.take(sequence, last=mark.end)
        return sequence

    def _check_room(self, call: Call) -> None:
        retry = max(_SHORTEST_RETRY_SECONDS, self._waiting * self.statistics.run_seconds)
        most, size = self._limits.requests, size_of(call.inputs)
        if self._waiting >= most:
            self.statistics.dropped("refused")
            text = f"{self._waiting} requests wait for sequences of model {self._label}, which is its limit."
            raise Overloaded.retry(text, retry, limit_requests=most)
        if self._waiting and self._waiting_bytes + size > self._limits.size:
            self.statistics.dropped("refused")
            text = f"{self._waiting_bytes} bytes wait for sequences of model {self._label}; {size} more pass its limit."
            raise Overloaded.retry(text, retry, limit_bytes=self._limits.size)

    async def _wait(self, sequence: Sequence, turn: asyncio.Future[None], call: Call) -> None:
        """Wait until it is a request's turn in its sequence."""
        size = size_of(call.inputs)
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

    def _invalid(self, parameter: str, text: str) -> InvalidRequest:
        return InvalidRequest.of_field(f"parameters[{parameter}]", f"model {self._label}: {text}", model=self._label)


def _mark(call: Call) -> SequenceMark:
    assert call.sequence is not None  # noqa: S101 - a request without is refused when it is admitted
    return call.sequence


def _is_given(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None


def _own(array: Array) -> Array:
    return array if array.base is None else array.copy()
