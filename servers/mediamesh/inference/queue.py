"""The requests that wait for one model."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.wire.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Mapping

    import numpy as np
    from opentelemetry.trace import SpanContext

__all__ = ["Queue", "Ticket"]


@dataclass(slots=True, eq=False)
class Ticket:
    """One request, from its arrival to its answer.

    Attributes:
        inputs: Tensors by name.
        outputs: Names of the wanted outputs.
        items: Size of its batch dimension; 1 for a model that has none.
        answer: Gets the outputs' tensors, in the order of their names.
        span: The request's span, where its trace is recorded.
        arrived: When, by ``time.monotonic_ns``.
        size: Bytes of the tensors.
        kind: Only requests of one kind share a batch: equal shapes and equal wanted outputs.
    """

    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    items: int
    answer: asyncio.Future[list[np.ndarray[Any, Any]]]
    span: SpanContext | None = None
    arrived: int = field(default_factory=time.monotonic_ns)
    size: int = field(init=False)
    kind: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(tensor.nbytes for tensor in self.inputs.values())
        self.kind = (self.outputs, *((name, tensor.shape[1:]) for name, tensor in sorted(self.inputs.items())))


class Queue:
    """First come, first served, bounded; the event loop puts and withdraws, worker threads take.

    Args:
        label: What errors call the model.
        max_requests: Most requests that wait.
        max_bytes: Most bytes of tensors that wait.
        max_items: Largest batch; 0 gives every request a run of its own.
    """

    def __init__(self, label: str, *, max_requests: int, max_bytes: int, max_items: int) -> None:
        self._label = label
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._changed = threading.Condition()
        self._all: OrderedDict[Ticket, None] = OrderedDict()
        self._by_kind: dict[Hashable, OrderedDict[Ticket, None]] = {}
        self._bytes = 0
        self._idle = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

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
            if len(self._all) >= self._max_requests:
                text = f"{len(self._all)} requests wait for model {self._label}, which is its limit."
                raise Overloaded.retry(text, retry_after, limit_requests=self._max_requests)
            if self._all and self._bytes + ticket.size > self._max_bytes:
                text = f"{self._bytes} bytes wait for model {self._label}; {ticket.size} more pass its limit."
                raise Overloaded.retry(text, retry_after, limit_bytes=self._max_bytes)
            self._all[ticket] = None
            self._by_kind.setdefault(ticket.kind, OrderedDict())[ticket] = None
            self._bytes += ticket.size
            self._changed.notify()

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a request out; false when it is running already."""
        with self._changed:
            if ticket not in self._all:
                return False
            self._remove(ticket)
            return True

    def take(self) -> list[Ticket]:
        """Wait for requests and return a batch of one kind; empty once the queue is closed.

        No batch takes more than its share while other workers idle: on a CPU two runs side by side beat one of two.
        """
        with self._changed:
            self._idle += 1
            try:
                while not self._all:
                    if self._closed:
                        return []
                    self._changed.wait()
                return self._batch(share=-(-len(self._all) // self._idle))
            finally:
                self._idle -= 1

    def close(self) -> list[Ticket]:
        """Accept nothing more; return those that still wait."""
        with self._changed:
            self._closed = True
            left = list(self._all)
            for ticket in left:
                self._remove(ticket)
            self._changed.notify_all()
            return left

    def _batch(self, share: int) -> list[Ticket]:
        first = next(iter(self._all))
        batch, items = [first], first.items
        for ticket in self._by_kind[first.kind]:
            if ticket is first:
                continue
            if len(batch) >= share or items + ticket.items > self._max_items:
                break
            batch.append(ticket)
            items += ticket.items
        for ticket in batch:
            self._remove(ticket)
        return batch

    def _remove(self, ticket: Ticket) -> None:
        del self._all[ticket]
        same = self._by_kind[ticket.kind]
        del same[ticket]
        if not same:
            del self._by_kind[ticket.kind]
        self._bytes -= ticket.size
