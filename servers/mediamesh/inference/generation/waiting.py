"""The requests that wait for a row of the cache."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from mediamesh.wire.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediamesh.inference.generation.job import Job

__all__ = ["Waiting"]


class Waiting:
    """First come, first served, bounded; the event loop puts and withdraws, the engine takes.

    Args:
        label: What errors call the model.
        max_requests: Most requests that wait.
        max_tokens: Most prompt tokens that wait.
    """

    def __init__(self, label: str, *, max_requests: int, max_tokens: int) -> None:
        self._label = label
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._tokens = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, *, retry_after: float) -> None:
        """Let a request wait; ``retry_after`` seconds are told to a caller for whom there is no room.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the model is being unloaded.
        """
        with self._changed:
            if self._closed:
                raise Unavailable(f"Model {self._label} is being unloaded.")
            if len(self._jobs) >= self._max_requests:
                text = f"{len(self._jobs)} requests wait for model {self._label}, which is its limit."
                raise Overloaded.retry(text, retry_after, limit_requests=self._max_requests)
            if self._jobs and self._tokens + len(job.prompt) > self._max_tokens:
                text = (
                    f"{self._tokens} prompt tokens wait for model {self._label}; {len(job.prompt)} more pass its limit."
                )
                raise Overloaded.retry(text, retry_after, limit_tokens=self._max_tokens)
            self._jobs.append(job)
            self._tokens += len(job.prompt)
            self._changed.notify()

    def withdraw(self, job: Job) -> bool:
        """Take a request out; false when it runs already, or has ended."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self._tokens -= len(job.prompt)
            return True

    def take(self, room: int) -> Job | None:
        """Return the first request, if it fits into so many tokens of cache."""
        with self._changed:
            if not self._jobs or self._jobs[0].reserved > room:
                return None
            job = self._jobs.popleft()
            self._tokens -= len(job.prompt)
            return job

    def remove_if(self, condition: Callable[[Job], bool]) -> list[Job]:
        """Take out the requests for which a condition holds, and return them."""
        with self._changed:
            gone = [job for job in self._jobs if condition(job)]
            if gone:
                self._jobs = deque(job for job in self._jobs if not condition(job))
                self._tokens = sum(len(job.prompt) for job in self._jobs)
            return gone

    def wait(self, *, idle: bool) -> bool:
        """Wait for a request if the engine is idle; false once the queue is closed."""
        with self._changed:
            while idle and not self._jobs and not self._closed:
                self._changed.wait()
            return not self._closed

    def close(self) -> list[Job]:
        """Accept nothing more; return those that still wait."""
        with self._changed:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._tokens = 0
            self._changed.notify_all()
            return left
