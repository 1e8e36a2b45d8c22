"""``dynamic_batching`` of config.pbtxt: how requests wait, and which of them run together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BatchPolicy", "LevelPolicy", "batch_policy"]

# A queue looks at each of its levels whenever a worker is free.
_MOST_LEVELS = 64
_MICROSECOND = 1_000  # in nanoseconds
_LONGEST_MICROSECONDS = 10**15  # 31 years; what is longer would not fit the clock


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """How the requests of one priority wait.

    Attributes:
        most: Largest number of them; 0 leaves it to the queue's limit.
        timeout: Longest wait in nanoseconds; 0 is for ever.
        overridable: Whether a request may set a shorter one.
        delays: Whether a request that waited too long runs after the others, in place of being refused.
    """

    most: int = 0
    timeout: int = 0
    overridable: bool = False
    delays: bool = False

    def timeout_of(self, own: int) -> int:
        """Return the longest wait of a request that asks for ``own`` nanoseconds, 0 for nothing.

        Triton counts a request's timeout only where a policy allows it; here it counts as well where the policy has
        none (docs/decisions/0008-triton-protocol.md).
        """
        if own and (not self.timeout or (self.overridable and own < self.timeout)):
            return own
        return self.timeout


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How the requests of a model become batches.

    Attributes:
        most_items: Largest batch; 0 gives every request a run of its own.
        aim: Batches reach for this size: the largest preferred one, or what pays.
        preferred: Sizes of a batch that is sent without waiting for more; none sends all there is.
        delay: How long a request waits for others to fill a batch, in nanoseconds.
        in_order: Whether answers leave in the order in which the requests came.
        levels: By priority, the first being the highest.
        default_level: Priority, from 1, of requests that name none or one that does not exist.
    """

    most_items: int = 0
    aim: int = 0
    preferred: frozenset[int] = frozenset()
    delay: int = 0
    in_order: bool = False
    levels: tuple[LevelPolicy, ...] = (LevelPolicy(),)
    default_level: int = 1

    def limited_to(self, pays: int) -> BatchPolicy:
        """Return the policy for a model that gains nothing from batches of more than so many items.

        Who names preferred sizes has decided otherwise.
        """
        if self.preferred or not self.most_items:
            return self
        return replace(self, aim=max(1, min(self.aim, pays)))

    def level_of(self, priority: int) -> int:
        """Return the place in ``levels`` of a request's priority, as Triton has it."""
        return (priority if 1 <= priority <= len(self.levels) else self.default_level) - 1


def batch_policy(path: Path, config: pb.ModelConfig) -> BatchPolicy:
    """Return what a configuration says; without ``dynamic_batching`` every request runs alone.

    Args:
        path: The file that errors name.
        config: The configuration.

    Raises:
        LoadError: it contradicts itself.
    """
    if not config.HasField("dynamic_batching"):
        return BatchPolicy()
    own, where = config.dynamic_batching, f"{path}: dynamic_batching"
    for problem in _problems(own, config.max_batch_size):
        raise LoadError(f"{where}.{problem}")
    policies = own.priority_queue_policy
    levels = [
        _level(policies.get(number, own.default_queue_policy)) for number in range(1, 1 + max(1, own.priority_levels))
    ]
    return BatchPolicy(
        most_items=config.max_batch_size,
        aim=max(own.preferred_batch_size, default=config.max_batch_size),
        preferred=frozenset(own.preferred_batch_size),
        delay=own.max_queue_delay_microseconds * _MICROSECOND,
        in_order=own.preserve_ordering,
        levels=tuple(levels),
        default_level=own.default_priority_level or 1,
    )


def _level(policy: pb.ModelQueuePolicy) -> LevelPolicy:
    return LevelPolicy(
        most=policy.max_queue_size,
        timeout=policy.default_timeout_microseconds * _MICROSECOND,
        overridable=policy.allow_timeout_override,
        delays=policy.timeout_action == pb.ModelQueuePolicy.DELAY,
    )


def _problems(own: pb.ModelDynamicBatching, most: int) -> Iterator[str]:
    """Yield what Triton would refuse, and what this server cannot do."""
    for size in own.preferred_batch_size:
        if not 1 <= size <= most:
            yield f"preferred_batch_size: {size}, expected 1 to max_batch_size, which is {most}."
    if own.max_queue_delay_microseconds > _LONGEST_MICROSECONDS:
        yield f"max_queue_delay_microseconds: {own.max_queue_delay_microseconds}, at most {_LONGEST_MICROSECONDS}."
    levels = own.priority_levels
    if levels > _MOST_LEVELS:
        yield f"priority_levels: {levels}, this server has at most {_MOST_LEVELS}."
    if levels and not 1 <= own.default_priority_level <= levels:
        yield f"default_priority_level: {own.default_priority_level}, expected 1 to priority_levels, which is {levels}."
    if not levels and own.default_priority_level:
        yield f"default_priority_level: {own.default_priority_level}, but there are no priority_levels."
    for number in own.priority_queue_policy:
        if not 1 <= number <= levels:
            yield f"priority_queue_policy: is for priority {number}, expected 1 to priority_levels, which is {levels}."
    policies = [own.default_queue_policy, *own.priority_queue_policy.values()]
    if any(policy.default_timeout_microseconds > _LONGEST_MICROSECONDS for policy in policies):
        yield f"default_queue_policy.default_timeout_microseconds: at most {_LONGEST_MICROSECONDS}."
    if own.preserve_ordering and levels > 1:
        yield f"preserve_ordering: is not possible with priorities, there are {levels}."
    if own.preserve_ordering and any(policy.timeout_action == pb.ModelQueuePolicy.DELAY for policy in policies):
        yield "preserve_ordering: is not possible where a timeout_action is DELAY."
