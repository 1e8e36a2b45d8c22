"""The sequences of a model: which are in progress, which wait for a slot, and when they end."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics

from mediamesh.wire.errors import FailedPrecondition, MeshError, Unavailable

if TYPE_CHECKING:
    import numpy as np

    from mediamesh.inference.statistics import Statistics

    Array = np.ndarray[Any, Any]

__all__ = ["Sequence", "Slots"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.inference")
_ACTIVE = _METER.create_up_down_counter(
    "mediamesh_inference_sequences", description="Sequences in progress, and those that wait for a slot."
)
_ENDED = _METER.create_counter(
    "mediamesh_inference_sequences_ended", description="Sequences that have ended, by reason."
)
# Ended sequences whose reason is remembered, for whoever sends one more request.
_REMEMBERED = 1024


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence, from its start to its end.

    Attributes:
        key: What its callers call it.
        has_slot: It is in progress.
        state: The tensors kept; None before its first request has run.
        busy: One of its requests runs, or is about to.
        closing: Its last request has come.
        ended: Why it takes no more; empty as long as it does.
        turns: The requests that wait, in order.
    """

    key: int | str
    has_slot: bool
    state: list[Array] | None = None
    busy: bool = False
    closing: bool = False
    ended: str = ""
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)


class Slots:
    """Gives slots to sequences, and turns to the requests of those that have one; belongs to the event loop.

    Args:
        label: What errors call the model.
        most: Sequences in progress; others wait.
        idle_seconds: Time without a request after which a sequence is ended.
        statistics: The model's counters.
    """

    def __init__(self, label: str, most: int, idle_seconds: float, statistics: Statistics) -> None:
        self._label = label
        self._most = most
        self._idle_seconds = idle_seconds
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._live: dict[int | str, Sequence] = {}
        self._in_progress: set[Sequence] = set()
        self._backlog: OrderedDict[Sequence, None] = OrderedDict()
        # Those without a request, by the time of their last, which is the order in which they got here.
        self._idle: OrderedDict[Sequence, float] = OrderedDict()
        self._reaper: asyncio.TimerHandle | None = None
        self._why: OrderedDict[int | str, str] = OrderedDict()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether the next sequence has to wait."""
        return len(self._in_progress) >= self._most

    @property
    def active(self) -> int:
        """Sequences in progress."""
        return len(self._in_progress)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._backlog)

    def find(self, key: int | str) -> Sequence | None:
        """Return the sequence that takes the next request of this name."""
        return self._live.get(key)

    def why_ended(self, key: int | str) -> str:
        """Return why the last sequence of this name was ended; empty where it was not, or long ago."""
        return self._why.get(key, "")

    def open(self, key: int | str) -> Sequence:
        """Begin a sequence; it has a slot where one is free."""
        has_slot = not self.full
        sequence = self._live[key] = Sequence(key, has_slot)
        self._why.pop(key, None)
        if has_slot:
            self._in_progress.add(sequence)
        else:
            self._backlog[sequence] = None
        self._count("active" if has_slot else "waiting", 1)
        return sequence

    def take(self, sequence: Sequence, *, last: bool) -> None:
        """Note that a sequence has got a request, and whether it is its last."""
        self._idle.pop(sequence, None)
        if last:
            sequence.closing = True
            del self._live[sequence.key]

    def reopen(self, sequence: Sequence) -> None:
        """Let a sequence go on whose last request has failed, unless another of its name has begun since."""
        if sequence.key not in self._live and not sequence.ended:
            sequence.closing = False
            self._live[sequence.key] = sequence

    def release(self, sequence: Sequence) -> None:
        """Give the turn to the next request of a sequence, after one has run."""
        sequence.busy = False
        if sequence.ended:
            self._leave(sequence)
        elif not _give_turn(sequence):
            if sequence.closing:
                self.end(sequence, "finished", "its last request has been answered")
            else:
                self._idle[sequence] = self._loop.time()
                self._plan_reaping()

    def end(self, sequence: Sequence, reason: str, why: str) -> None:
        """Let a sequence take no more, refuse what waits in it, and free its slot once nothing of it runs.

        Args:
            sequence: The sequence; one that has ended is left as it is.
            reason: For metrics.
            why: For people.
        """
        if sequence.ended:
            return
        sequence.ended = why
        self._idle.pop(sequence, None)
        if self._live.get(sequence.key) is sequence:
            del self._live[sequence.key]
            self._remember(sequence.key, why)
        _ENDED.add(1, {**self._statistics.labels, "reason": reason})
        for turn in sequence.turns:
            if not turn.done():
                self._statistics.dropped("cancelled")
                turn.set_exception(self.ending(sequence))
        sequence.turns.clear()
        if not sequence.busy:
            self._leave(sequence)

    def ending(self, sequence: Sequence) -> MeshError:
        """Return what the requests get that waited in a sequence when it was ended."""
        if self._closed:
            return self.unloaded()
        text = f"Sequence {sequence.key!r} of model {self._label} was ended: {sequence.ended}. Start it again."
        return FailedPrecondition(text, model=self._label)

    def unloaded(self) -> Unavailable:
        """Return what requests get when the model goes away."""
        return Unavailable(f"Model {self._label} is being unloaded.")

    def close(self) -> None:
        """End all sequences."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for sequence in (*self._in_progress, *self._backlog):
            self.end(sequence, "unloaded", "the model is being unloaded")

    def _leave(self, sequence: Sequence) -> None:
        """Take out a sequence of which nothing runs, and let one that waits have its slot."""
        if sequence in self._backlog:
            del self._backlog[sequence]
            self._count("waiting", -1)
        elif sequence in self._in_progress:
            self._in_progress.discard(sequence)
            sequence.state = None
            self._count("active", -1)
            if self._backlog and not self._closed:
                self._place(self._backlog.popitem(last=False)[0])

    def _place(self, sequence: Sequence) -> None:
        sequence.has_slot = True
        self._in_progress.add(sequence)
        self._count("waiting", -1)
        self._count("active", 1)
        _give_turn(sequence)

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
            self.end(sequence, "idle", f"it was idle for {self._idle_seconds:g} s")
        self._plan_reaping()

    def _remember(self, key: int | str, why: str) -> None:
        self._why[key] = why
        if len(self._why) > _REMEMBERED:
            self._why.popitem(last=False)

    def _count(self, state: str, amount: int) -> None:
        _ACTIVE.add(amount, {**self._statistics.labels, "state": state})


def _give_turn(sequence: Sequence) -> bool:
    """Let the next request of a sequence run; false when none waits."""
    while sequence.turns:
        turn = sequence.turns.popleft()
        if not turn.done():
            sequence.busy = True
            turn.set_result(None)
            return True
    return False
