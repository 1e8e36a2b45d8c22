"""Runs a decoder step by step; requests join and leave the batch between any two steps."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(slots=True)
class Step:
    """What one step did.

    Attributes:
        began: When, by ``time.monotonic``.
        prompt_tokens: Tokens of prompts that were read.
        read: When the prompts were read.
        batch: Requests that got a token from the running batch.
        ended: When its tokens were there.
        cached: Tokens in the cache.
        pieces: What requests got.
    """

    began: float
    prompt_tokens: int
    read: float
    batch: int
    ended: float
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
            self._report(self._step())
        closing = Unavailable(f"Model {self._label} is being unloaded.")
        pieces = [Piece(job, error=closing) for job in self._all()]
        now = time.monotonic()
        self._report(Step(now, 0, now, 0, now, 0, pieces))

    def _step(self) -> Step:
        began = time.monotonic()
        pieces = self._drop(began)
        prompt_tokens = self._guarded(self._prefill, pieces)
        read = time.monotonic()
        batch = self._guarded(self._decode, pieces)
        cached = sum(job.length for job in self._running) + (self._entering.read if self._entering else 0)
        return Step(began, prompt_tokens, read, batch, time.monotonic(), cached, pieces)

    def _all(self) -> list[Job]:
        return [*self._running, *([self._entering] if self._entering is not None else [])]

    def _guarded(self, act: Callable[[list[Piece]], int], pieces: list[Piece]) -> int:
        """Run the model; when it fails, all whom it ran for have failed, and the engine goes on."""
        try:
            return act(pieces)
        except MeshError as error:
            failure = error
        except Exception:  # noqa: BLE001 - the worker outlives whatever a step does to it
            _LOG.exception("model %s failed", self._label)
            failure = MeshError(f"Model {self._label} failed; the server's log has the cause.")
        pieces += self._leave([(job, failure) for job in self._all()])
        return 0

    def _drop(self, now: float) -> list[Piece]:
        """Let those go whose callers left or whose time is over."""

        def over(job: Job) -> bool:
            return job.deadline is not None and now >= job.deadline

        expired = self._waiting.remove_if(over)
        pieces = [Piece(job, error=self._expiry(job, now)) for job in expired]
        gone = [
            (job, self._expiry(job, now) if over(job) else None) for job in self._all() if job.cancelled or over(job)
        ]
        return pieces + self._leave(gone)

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

    def _prefill(self, pieces: list[Piece]) -> int:
        """Read prompts, as many tokens as there may be between two steps."""
        budget = self._prefill_tokens * (1 if self._running else _ALONE)
        left = budget
        while left > 0 and (job := self._next()) is not None:
            chunk = job.prompt[job.read : job.read + left]
            logits = self._decoder.prefill(job.row, chunk, job.read)
            job.read += len(chunk)
            left -= len(chunk)
            if job.read == len(job.prompt):
                self._join(job)
                self._accept([job], [logits], pieces)
        return budget - left

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
        return self._entering

    def _join(self, job: Job) -> None:
        row = len(self._running)
        if job.row != row:  # someone left while the prompt was read
            self._decoder.cache.move(job.row, row, len(job.prompt))
            job.row = row
        self._running.append(job)
        self._entering = None

    def _decode(self, pieces: list[Piece]) -> int:
        batch = list(self._running)
        if not batch:
            return 0
        tokens = np.array([job.last for job in batch], np.int64)
        lengths = np.array([job.length for job in batch], np.int64)
        self._accept(batch, self._decoder.step(tokens, lengths), pieces)
        return len(batch)

    def _accept(self, batch: Sequence[Job], logits: Sequence[Array] | Array, pieces: list[Piece]) -> None:
        own = [job.accept(job.sampler.choose(row)) for job, row in zip(batch, logits, strict=True)]
        pieces += own
        for piece in own:  # only now, as whoever moves needs its newest token counted
            if piece.finish:
                self._vacate(piece.job)
