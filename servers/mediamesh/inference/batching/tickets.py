"""A request that waits, and the lanes in which it does."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.inference.scheduling import size_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Mapping

    import numpy as np
    from opentelemetry.trace import SpanContext

__all__ = ["Lane", "Ticket"]


@dataclass(slots=True, eq=False)
class Ticket:
    """One request, from its arrival to its answer.

    Attributes:
        inputs: Tensors by name.
        outputs: Names of the wanted outputs.
        items: Size of its batch dimension; 1 for a model that has none.
        answer: Gets the outputs' tensors, in the order of their names.
        level: Place of its priority among the levels of the policy.
        timeout: Longest wait that it asks for, in nanoseconds; 0 asks for nothing.
        deadline: When its caller gives up, by the clock of the queue; 0 is never.
        span: The request's span, where its trace is recorded.
        arrived: When, by the clock of the queue, in nanoseconds.
        size: Bytes of the tensors.
        kind: Only requests of one kind share a batch: equal shapes and equal wanted outputs.
        lane: Where it waits; None when it does not.
    """

    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    items: int
    answer: asyncio.Future[list[np.ndarray[Any, Any]]]
    level: int = 0
    timeout: int = 0
    deadline: int = 0
    span: SpanContext | None = None
    arrived: int = field(default_factory=time.monotonic_ns)
    size: int = field(init=False)
    kind: Hashable = field(init=False)
    lane: Lane | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.size = size_of(self.inputs)
        self.kind = (self.outputs, *((name, tensor.shape[1:]) for name, tensor in sorted(self.inputs.items())))


class Lane:
    """Requests in the order in which they came, all and by kind."""

    __slots__ = ("all", "by_kind")

    def __init__(self) -> None:
        self.all: OrderedDict[Ticket, None] = OrderedDict()
        self.by_kind: dict[Hashable, OrderedDict[Ticket, None]] = {}

    def add(self, ticket: Ticket) -> None:
        """Let a request be the last."""
        self.all[ticket] = None
        self.by_kind.setdefault(ticket.kind, OrderedDict())[ticket] = None
        ticket.lane = self

    def remove(self, ticket: Ticket) -> None:
        """Take a request out."""
        del self.all[ticket]
        same = self.by_kind[ticket.kind]
        del same[ticket]
        if not same:
            del self.by_kind[ticket.kind]
        ticket.lane = None
