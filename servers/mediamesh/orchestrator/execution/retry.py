"""When a run of a node that failed for a passing reason is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from mediamesh.wire.errors import MeshError, Overloaded, StreamInterrupted, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode

__all__ = ["Retries", "is_passing"]

_MULTIPLIER = 2.0


def is_passing(error: MeshError) -> bool:
    """Return whether the same run may well succeed a little later: its server is away, or at its limit."""
    return isinstance(error, Unavailable | Overloaded | StreamInterrupted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and when to try again.

    Attributes:
        attempts: Tries in all, the first one included.
        initial_seconds: Pause before the second.
        longest_seconds: Longest pause.
        multiplier: What each pause is multiplied by to get the next.
        patient: Whether a server at its limit that says when to come again is asked until the node's time is over,
            whatever `attempts` is.
    """

    attempts: int
    initial_seconds: float
    longest_seconds: float
    multiplier: float = _MULTIPLIER
    patient: bool = True

    def of(self, node: FlowNode) -> Self:
        """Return what the flow says for a node, with these in the place of what it leaves out."""
        if not node.HasField("retry"):
            return self
        policy = node.retry
        changed = replace(self, multiplier=policy.backoff_multiplier or self.multiplier)
        if policy.max_attempts:
            changed = replace(changed, attempts=policy.max_attempts, patient=False)
        if policy.HasField("initial_backoff"):
            changed = replace(changed, initial_seconds=policy.initial_backoff.ToNanoseconds() / 1e9)
        if policy.HasField("max_backoff"):
            changed = replace(changed, longest_seconds=policy.max_backoff.ToNanoseconds() / 1e9)
        return changed

    def pause(self, failures: int, error: MeshError) -> float | None:
        """Return how many seconds to wait after so many failures, the last being this one; None to give up.

        The pause grows by the multiplier and has jitter from half of it to all, so that nodes which failed together do
        not come back together; a server that says when to come again is not asked before.
        """
        if not is_passing(error):
            return None
        # gRPC itself says RESOURCE_EXHAUSTED too, of a message that is too large for as long as anybody asks.
        is_full = isinstance(error, Overloaded) and error.retry_after is not None
        if failures >= self.attempts and not (self.patient and is_full):
            return None
        # The exponent is bounded, as powers of floats overflow.
        grown = self.initial_seconds * self.multiplier ** min(failures - 1, 64)
        pause = min(grown, self.longest_seconds) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return max(pause, error.retry_after or 0.0)
