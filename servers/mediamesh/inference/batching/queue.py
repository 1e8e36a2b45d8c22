"""The requests that wait for one model, and which of them run next."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

from mediamesh.inference.batching.tickets import Lane, Ticket
from mediamesh.wire.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mediamesh.inference.batching.policies import BatchPolicy

__all__ = ["Queue"]

# Every so many batches the request that has waited longest comes first, whatever its priority, so that none starves.
_TURNS_OF_PRIORITY = 16
# While batches wait to fill, so many shapes are looked at for one that is full.
_SHAPES_LOOKED_AT = 16
_FEWEST_TIMES = 64


class Queue:
    """Bounded; by priority and then by arrival. The event loop puts and withdraws, worker threads take.

    Each priority has two lanes: the requests in time, and behind them those that its policy delayed.

    Args:
        label: What errors call the model.
        policy: How requests wait and become batches.
        max_requests: Most requests that wait.
        max_bytes: Most bytes of tensors that wait.
        clock: Nanoseconds that never go back.
    """

    def __init__(
        self,
        label: str,
        policy: BatchPolicy,
        *,
        max_requests: int,
        max_bytes: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.policy = policy
        self._label = label
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._lanes = [Lane() for _ in range(2 * len(policy.levels))]
        self._waiting = [0] * len(policy.levels)
        self._count = 0
        self._bytes = 0
        self._idle = 0
        self._turn = 0
        self._closed = False
        self._numbers = itertools.count()
        # When which request has waited too long; what left the queue since is passed over.
        self._times: list[tuple[int, int, Ticket, bool]] = []
        self._expired: list[Ticket] = []

    def __len__(self) -> int:
        return self._count

    def put(self, ticket: Ticket, *, retry_after: float) -> None:
        """Let a request wait.

        Args:
            ticket: The request.
            retry_after: Seconds to tell the caller when there is no room.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the model is being unloaded.
        """
        with self._changed:
            if self._closed:
                raise Unavailable(f"Model {self._label} is being unloaded.")
            self._check_room(ticket, retry_after)
            self._lanes[2 * ticket.level].add(ticket)
            self._waiting[ticket.level] += 1
            self._count += 1
            self._bytes += ticket.size
            self._note_times(ticket)
            if self._idle:
                self._changed.notify()

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a request out; false when it does not wait any more."""
        with self._changed:
            if ticket.lane is None:
                return False
            self._remove(ticket)
            return True

    def take(self) -> list[Ticket]:
        """Wait for requests and return a batch of one kind; empty once the queue is closed."""
        with self._changed:
            self._idle += 1
            try:
                while not self._closed:
                    batch, ready = self._next(self._clock())
                    if batch:
                        return batch
                    self._changed.wait(None if ready is None else max(0, ready - self._clock()) / 1e9)
                return []
            finally:
                self._idle -= 1

    def take_ready(self, workers: int = 1) -> tuple[list[Ticket], int | None]:
        """Return what `take` would return now to one of so many idle workers, or when to ask again."""
        with self._changed:
            self._idle += workers
            try:
                return self._next(self._clock())
            finally:
                self._idle -= workers

    def is_quiet(self, workers: int) -> bool:
        """Tell whether of so many workers all but one are idle, and nothing waits."""
        return not self._count and self._idle >= workers - 1

    def expired(self) -> list[Ticket]:
        """Take out, and return, the requests that have waited too long."""
        with self._changed:
            self._expire(self._clock())
            expired, self._expired = self._expired, []
            return expired

    def next_expiry(self) -> int | None:
        """Return when `expired` should be asked next, by the queue's clock; it may be too early, and never too late."""
        with self._changed:
            if self._expired:
                return self._clock()
            return self._times[0][0] if self._times else None

    def close(self) -> list[Ticket]:
        """Accept nothing more; return those that still wait."""
        with self._changed:
            self._closed = True
            left = [*self._expired, *(ticket for lane in self._lanes for ticket in lane.all)]
            self._expired = []
            for ticket in left:
                if ticket.lane is not None:
                    self._remove(ticket)
            self._times.clear()
            self._changed.notify_all()
            return left

    def _check_room(self, ticket: Ticket, retry_after: float) -> None:
        limit = self.policy.levels[ticket.level].most
        if limit and self._waiting[ticket.level] >= limit:
            which = f"priority {ticket.level + 1} of model" if len(self._waiting) > 1 else "model"
            text = f"{limit} requests wait for {which} {self._label}, which is its limit."
            raise Overloaded.retry(text, retry_after, limit_requests=limit)
        if self._count >= self._max_requests:
            text = f"{self._count} requests wait for model {self._label}, which is its limit."
            raise Overloaded.retry(text, retry_after, limit_requests=self._max_requests)
        if self._count and self._bytes + ticket.size > self._max_bytes:
            text = f"{self._bytes} bytes wait for model {self._label}; {ticket.size} more pass its limit."
            raise Overloaded.retry(text, retry_after, limit_bytes=self._max_bytes)

    def _next(self, now: int) -> tuple[list[Ticket], int | None]:
        """Return a batch, or when one will be ready; None is not before a request comes."""
        self._expire(now)
        if not self._count:
            return [], None
        soonest = None
        for first in self._firsts():
            batch, ready = self._batch(first, now)
            if ready <= now:
                self._turn += 1
                for ticket in batch:
                    self._remove(ticket)
                return batch, None
            soonest = ready if soonest is None else min(soonest, ready)
        if self._times and soonest is not None:
            soonest = min(soonest, self._times[0][0])
        return [], soonest

    def _firsts(self) -> Iterator[Ticket]:
        """Yield with whom the next batch may begin, most urgent first: the head of each kind."""
        lanes = [lane for lane in self._lanes if lane.all]
        if self._turn % _TURNS_OF_PRIORITY == _TURNS_OF_PRIORITY - 1:
            yield min((next(iter(lane.all)) for lane in lanes), key=lambda ticket: ticket.arrived)
        yield next(iter(lanes[0].all))
        if not self.policy.delay:
            return
        heads = (next(iter(same)) for lane in lanes for same in lane.by_kind.values())
        yield from itertools.islice(heads, _SHAPES_LOOKED_AT)

    def _batch(self, first: Ticket, now: int) -> tuple[list[Ticket], int]:
        """Return the batch that begins with a request, and when it should run.

        As in Triton: a preferred size runs at once, and so does what no further request fits into; anything else waits
        until its oldest request has waited for ``delay``, and then takes all that fits.
        """
        policy = self.policy
        if not policy.most_items:
            return [first], now
        limit = policy.most_items if policy.preferred else policy.aim
        share = self._share()
        batch, items, best, full = [first], first.items, 0, False
        if items in policy.preferred:
            best = 1
        for ticket in self._of_kind(first):
            if len(batch) >= share or items + ticket.items > limit:
                full = True
                break
            if not best and items + ticket.items > policy.aim:
                best = len(batch)
            batch.append(ticket)
            items += ticket.items
            if items in policy.preferred:
                best = len(batch)
        oldest = min(ticket.arrived for ticket in batch) if policy.delay else now
        if oldest + policy.delay <= now and policy.delay:
            return batch, now
        if best:
            return batch[:best], now
        return batch, now if full or items >= policy.aim else oldest + policy.delay

    def _share(self) -> int:
        # No batch takes more than its share while other workers idle: on a CPU two runs side by side beat one of two.
        if self.policy.preferred or self.policy.delay:
            return self._count
        return -(-self._count // max(1, self._idle))

    def _of_kind(self, first: Ticket) -> Iterator[Ticket]:
        for lane in self._lanes:
            for ticket in lane.by_kind.get(first.kind, ()):
                if ticket is not first:
                    yield ticket

    def _note_times(self, ticket: Ticket) -> None:
        if ticket.deadline:
            heapq.heappush(self._times, (ticket.deadline, next(self._numbers), ticket, True))
        if timeout := self.policy.levels[ticket.level].timeout_of(ticket.timeout):
            heapq.heappush(self._times, (ticket.arrived + timeout, next(self._numbers), ticket, False))
        if len(self._times) > 4 * self._count + _FEWEST_TIMES:
            self._times = [entry for entry in self._times if entry[2].lane is not None]
            heapq.heapify(self._times)

    def _expire(self, now: int) -> None:
        while self._times and self._times[0][0] <= now:
            _, _, ticket, is_deadline = heapq.heappop(self._times)
            if ticket.lane is None:
                continue
            if is_deadline or not self.policy.levels[ticket.level].delays:
                self._remove(ticket)
                self._expired.append(ticket)
            else:
                ticket.lane.remove(ticket)
                self._lanes[2 * ticket.level + 1].add(ticket)

    def _remove(self, ticket: Ticket) -> None:
        if ticket.lane is not None:
            ticket.lane.remove(ticket)
        self._waiting[ticket.level] -= 1
        self._count -= 1
        self._bytes -= ticket.size
