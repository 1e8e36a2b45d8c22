"""Runs a decoder step by step; requests join and leave the batch between any two steps."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.inference.generation.job import Piece
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mediamesh.inference.generation.decoder import Decoder
    from mediamesh.inference.generation.job import Job
    from mediamesh.inference.generation.waiting import Waiting

    Array = np.ndarray[Any, Any]

__all__ = ["Engine", "Step"]

_LOG = logging.getLogger(__name__)
# With nobody to keep waiting, a prompt is read in larger pieces; still small enough to be left soon.
_ALONE = 4


class Step(NamedTuple):
    """What was done between two looks at who comes and who leaves.

    Attributes:
        prompt_tokens: Tokens of a prompt that were read; 0 when the running batch went on.
        batch: Requests of the running batch that went on; 0 when a prompt was read.
        seconds: How long it took.
        cached: Tokens in the cache.
        pieces: What requests got.
    """

    prompt_tokens: int
    batch: int
    seconds: float
    cached: int
    pieces: list[Piece]


class Engine:
    """The running batch; all but the constructor belongs to one worker thread.

    Rows 0 to n - 1 of the cache are those of the n running requests; the request whose prompt is being read has one
    behind them.

    Args:
        label: What errors call the model.
        decoder: The model.
        waiting: Where requests come from.
        report: Takes what each step did.
        rows: Most requests that run.
        cache_tokens: Most tokens that they may come to need together.
        prefill_tokens: Prompt tokens that are read between two steps of those that run.
    """

    def __init__(
        self,
        label: str,
        decoder: Decoder,
        waiting: Waiting,
        report: Callable[[Step], None],
        *,
        rows: int,
        cache_tokens: int,
        prefill_tokens: int,
    ) -> None:
        self._label = label
        self._decoder = decoder
        self._waiting = waiting
        self._report = report
        self._rows = rows
        self._cache_tokens = cache_tokens
        self._prefill_tokens = prefill_tokens
        self._running: list[Job] = []
        self._entering: Job | None = None

    def work(self) -> None:
        """Generate until the queue is closed; the body of the worker thread."""
        while self._waiting.wait(idle=not self._running and self._entering is None):
            self._drop()
            self._guarded(self._prefill, lambda: [self._entering] if self._entering is not None else [])
            self._guarded(self._decode, lambda: self._running)
        closing = Unavailable(f"Model {self._label} is being unloaded.")
        self._tell([Piece(job, error=closing) for job in self._all()])

    def _all(self) -> list[Job]:
        return [*self._running, *([self._entering] if self._entering is not None else [])]

    def _tell(self, pieces: list[Piece], *, prompt_tokens: int = 0, batch: int = 0, began: float = 0.0) -> None:
        cached = sum(job.length for job in self._running) + (self._entering.read if self._entering else 0)
        seconds = time.monotonic() - began if began else 0.0
        self._report(Step(prompt_tokens, batch, seconds, cached, pieces))

    def _guarded(self, act: Callable[[], None], whom: Callable[[], Sequence[Job]]) -> None:
        """Run the model; when it fails, those whom it ran for have failed, and the engine goes on."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the worker outlives whatever a step does to it
            failure = self._failure(error)
            self._tell(self._leave([(job, failure) for job in whom()]))

    def _failure(self, error: Exception) -> MeshError:
        """Return what callers are told of an error; one that is not meant for them goes to the log."""
        if isinstance(error, MeshError):
            return error
        _LOG.error("model %s failed", self._label, exc_info=error)
        return MeshError(f"Model {self._label} failed; the server's log has the cause.")

    def _drop(self) -> None:
        """Let those go whose callers left or whose time is over."""
        now = time.monotonic()

        def over(job: Job) -> bool:
            return job.deadline is not None and now >= job.deadline

        pieces = [Piece(job, error=self._expiry(job, now)) for job in self._waiting.remove_if(over)]
        gone = [
            (job, self._expiry(job, now) if over(job) else None) for job in self._all() if job.cancelled or over(job)
        ]
        pieces += self._leave(gone)
        if pieces:
            self._tell(pieces)

    def _expiry(self, job: Job, now: float) -> MeshError:
        return DeadlineExceeded(
            f"The deadline passed after {now - job.arrived:.3f} s, with {job.tokens} tokens from model {self._label}.",
            model=self._label,
        )

    def _leave(self, gone: Sequence[tuple[Job, MeshError | None]]) -> list[Piece]:
        for job, _ in gone:
            if job is self._entering:
                self._entering = None
                self._decoder.cache.release(job.row)
            else:
                self._vacate(job)
        return [Piece(job, error=error) for job, error in gone if error is not None]

    def _vacate(self, job: Job) -> None:
        """Take a request out of the batch; the last one moves into its row."""
        last = self._running.pop()
        if last is job:
            self._decoder.cache.release(job.row)
            return
        # Its newest token is not in the cache yet.
        self._decoder.cache.move(last.row, job.row, last.length - 1)
        last.row = job.row
        self._running[job.row] = last

    def _prefill(self) -> None:
        """Read prompts, as many tokens as there may be between two steps."""
        left = self._prefill_tokens * (1 if self._running else _ALONE)
        while left > 0 and (job := self._next()) is not None:
            began = time.monotonic()
            chunk = job.prompt[job.read : job.read + left]
            logits = self._decoder.prefill(job.row, chunk, job.read)
            job.read += len(chunk)
            left -= len(chunk)
            pieces: list[Piece] = []
            if job.read == len(job.prompt):
                self._join(job)
                pieces = self._accept([job], [logits])
            self._tell(pieces, prompt_tokens=len(chunk), began=began)

    def _next(self) -> Job | None:
        """Return the request whose prompt is read next."""
        while self._entering is None and len(self._running) < self._rows:
            room = self._cache_tokens - sum(job.reserved for job in self._running)
            job = self._waiting.take(room)
            if job is None or job.cancelled:
                if job is None:
                    break
                continue
            job.row, job.joined = len(self._running), time.monotonic()
            self._entering = job
            self._begin_as_others(job)
        return self._entering

    def _begin_as_others(self, job: Job) -> None:
        """Copy what is in the cache already of a prompt that begins as that of a running request does.

        Conversations share the text of the system; a copy takes microseconds a token, the model a thousand times that.
        """
        shared, row = max(((_common(job, other), other.row) for other in self._running), default=(0, 0))
        if shared:
            self._decoder.cache.copy(row, job.row, shared)
            job.read = shared

    def _join(self, job: Job) -> None:
        row = len(self._running)
        if job.row != row:  # someone left while the prompt was read
            self._decoder.cache.move(job.row, row, len(job.prompt))
            job.row = row
        self._running.append(job)
        self._entering = None

    def _decode(self) -> None:
        """Take the running batch one token further."""
        batch = list(self._running)
        if not batch:
            return
        began = time.monotonic()
        tokens = np.array([job.last for job in batch], np.int64)
        lengths = np.array([job.length for job in batch], np.int64)
        pieces = self._accept(batch, self._decoder.step(tokens, lengths))
        self._tell(pieces, batch=len(batch), began=began)

    def _accept(self, batch: Sequence[Job], logits: Sequence[Array] | Array) -> list[Piece]:
        pieces = [self._next_token(job, row) for job, row in zip(batch, logits, strict=True)]
        for piece in pieces:  # only now, as whoever moves needs its newest token counted
            if piece.finish or piece.error is not None:
                self._vacate(piece.job)
        return pieces

    def _next_token(self, job: Job, logits: Array) -> Piece:
        try:
            return job.accept(job.sampler.choose(logits))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one request, the others go on
            return Piece(job, error=self._failure(error))


def _common(job: Job, other: Job) -> int:
    """Return how many tokens two prompts begin with, short of the last of the first, whose logits are needed."""
    most = min(len(job.prompt) - 1, len(other.prompt))
    differ = job.ids[:most] != other.ids[:most]
    return int(differ.argmax()) if differ.any() else most
