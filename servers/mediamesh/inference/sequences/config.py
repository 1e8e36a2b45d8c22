"""``sequence_batching`` of config.pbtxt: how many sequences run at once, how they share runs, and when they end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.inference.batching.policies import BatchPolicy
from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError
from mediamesh.inference.sequences.controls import read_controls
from mediamesh.inference.sequences.states import read_states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mediamesh.api.inference.v2 import model_config_pb2 as pb
    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.sequences.controls import Controls
    from mediamesh.inference.sequences.states import State

__all__ = ["SequenceConfig", "read_sequences"]

_IDLE_MICROSECONDS = 1_000_000  # Triton's, where nothing is said
_LONGEST_MICROSECONDS = 10**15  # 31 years; what is longer would not fit the clock


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """How the sequences of a model are run.

    Attributes:
        slots: Sequences in progress for each instance; others wait.
        idle_seconds: Time without a request after which a sequence is ended.
        batches: How requests of different sequences share runs.
        controls: What the model is told about sequences.
        states: What is kept for each of them.
    """

    slots: int
    idle_seconds: float
    batches: BatchPolicy
    controls: Controls
    states: tuple[State, ...]

    def fed(self, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
        """Return those of the model's inputs that no caller gives."""
        names = {state.takes for state in self.states} | self.controls.names
        return [spec for spec in inputs if spec.name in names]


def read_sequences(
    directory: Path,
    label: str,
    config: pb.ModelConfig,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> SequenceConfig | None:
    """Return what a configuration says, and write into it what it leaves open; None without ``sequence_batching``.

    Args:
        directory: The model's directory.
        label: What errors call the model.
        config: The configuration, complete.
        inputs: The inputs of the ONNX file.
        outputs: Its outputs.

    Raises:
        LoadError: it contradicts itself or the ONNX file; names file and field.
    """
    if not config.HasField("sequence_batching"):
        return None
    own, where = config.sequence_batching, f"{directory / CONFIG_FILE}: sequence_batching"
    own.max_sequence_idle_microseconds = own.max_sequence_idle_microseconds or _IDLE_MICROSECONDS
    if own.WhichOneof("strategy_choice") is None:
        own.direct.SetInParent()
    if own.max_sequence_idle_microseconds > _LONGEST_MICROSECONDS:
        raise LoadError(f"{where}: max_sequence_idle_microseconds: more than {_LONGEST_MICROSECONDS}.")
    takes = {spec.name: spec for spec in inputs}
    if own.HasField("oldest"):
        slots, batches = _oldest(where, own.oldest, config.max_batch_size)
    else:
        slots, batches = _direct(where, own.direct, config.max_batch_size)
    return SequenceConfig(
        slots=slots,
        idle_seconds=own.max_sequence_idle_microseconds / 1e6,
        batches=batches,
        controls=read_controls(where, label, config, takes),
        states=read_states(where, directory, config, takes, {spec.name: spec for spec in outputs}),
    )


def _direct(where: str, own: pb.ModelSequenceBatching.StrategyDirect, most: int) -> tuple[int, BatchPolicy]:
    """Return slots and batches: a slot for each place of a batch."""
    share = own.minimum_slot_utilization
    if not 0 <= share <= 1:
        raise LoadError(f"{where}: direct: minimum_slot_utilization: {share:g}, expected 0 to 1.")
    # The delay counts only where a share of the slots is waited for, as in Triton.
    delay = _delay(f"{where}: direct", own.max_queue_delay_microseconds) if share else 0
    if not most:
        return 1, BatchPolicy()
    enough = frozenset(range(max(1, math.ceil(share * most)), most + 1))
    return most, BatchPolicy(most_items=most, aim=most, preferred=enough if delay else frozenset(), delay=delay)


def _oldest(where: str, own: pb.ModelSequenceBatching.StrategyOldest, most: int) -> tuple[int, BatchPolicy]:
    if own.max_candidate_sequences < 1:
        raise LoadError(f"{where}: oldest: max_candidate_sequences: {own.max_candidate_sequences}, expected 1 or more.")
    delay = _delay(f"{where}: oldest", own.max_queue_delay_microseconds)
    for size in own.preferred_batch_size:
        if not 1 <= size <= max(1, most):
            raise LoadError(f"{where}: oldest: preferred_batch_size: {size}, expected 1 to max_batch_size, {most}.")
    if not most:
        return own.max_candidate_sequences, BatchPolicy(in_order=own.preserve_ordering)
    return own.max_candidate_sequences, BatchPolicy(
        most_items=most,
        aim=max(own.preferred_batch_size, default=most),
        preferred=frozenset(own.preferred_batch_size),
        delay=delay,
        in_order=own.preserve_ordering,
    )


def _delay(where: str, microseconds: int) -> int:
    if microseconds > _LONGEST_MICROSECONDS:
        raise LoadError(f"{where}: max_queue_delay_microseconds: {microseconds}, at most {_LONGEST_MICROSECONDS}.")
    return microseconds * 1000
