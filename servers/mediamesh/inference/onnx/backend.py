"""The backend that runs ONNX files with onnxruntime."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.inference.backend import Backend
from mediamesh.inference.batching.batcher import batching
from mediamesh.inference.batching.pace import Pace
from mediamesh.inference.batching.policies import BatchPolicy, batch_policy
from mediamesh.inference.batching.queue import Queue
from mediamesh.inference.configuration.completion import complete, offered
from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError
from mediamesh.inference.onnx.instances import Instances
from mediamesh.inference.onnx.measure import largest_worthwhile, time_batches
from mediamesh.inference.onnx.providers import cores
from mediamesh.inference.onnx.tuning import read_tuning
from mediamesh.inference.onnx.warmup import WarmUp, zeros
from mediamesh.inference.protocol.classification import read_labels
from mediamesh.inference.repository.loading import in_a_thread
from mediamesh.inference.sequences.config import SequenceConfig, read_sequences
from mediamesh.inference.sequences.scheduler import Limits, sequencing
from mediamesh.inference.statistics import Statistics
from mediamesh.inference.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
    from mediamesh.inference.onnx.session import Session
    from mediamesh.inference.scheduling import Scheduler
    from mediamesh.inference.settings import Settings

__all__ = ["open_onnx"]

_LOG = logging.getLogger(__name__)
# What ModelConfig says about the measurement, beside what the model was configured with.
BATCH_PARAMETER = "measured_batch_size"
MILLISECONDS_PARAMETER = "measured_milliseconds"


@asynccontextmanager
async def open_onnx(
    directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings
) -> AsyncGenerator[Backend]:
    """Load an ONNX file for as long as the block lasts.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    label = f"{directory.name}/{version}"
    opened = await in_a_thread(label, _open, label, directory, version, config, settings)
    _LOG.info("model %s on %s, %d workers", label, ", ".join(opened.sessions[0].providers), len(opened.sessions))
    queue = Queue(label, opened.policy, max_requests=settings.queue_requests, max_bytes=settings.queue_bytes)
    statistics = Statistics(directory.name, str(version), dict(config.metric_tags))
    providers = tuple(opened.sessions[0].providers)
    async with AsyncExitStack() as stack:
        scheduler: Scheduler
        scheduler = batcher = await stack.enter_async_context(
            batching(label, opened.sessions, queue, statistics, opened.pace)
        )
        if opened.sequences is not None:
            limits = Limits(
                slots=opened.sequences.slots * len(opened.sessions),
                requests=settings.queue_requests,
                size=settings.queue_bytes,
            )
            scheduler = await stack.enter_async_context(sequencing(label, batcher, opened.sequences, limits))
        yield Backend(opened.config, opened.signature, scheduler, providers)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model in memory, warm.

    Attributes:
        config: Its configuration, complete.
        signature: What it takes and gives.
        sessions: One for each worker.
        policy: How its requests become batches.
        pace: How fast it runs.
        sequences: How its sequences are run, where it has any.
    """

    config: config_pb.ModelConfig
    signature: Signature
    sessions: list[Session]
    policy: BatchPolicy
    pace: Pace
    sequences: SequenceConfig | None


def _open(label: str, directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings) -> _Opened:
    path = directory / CONFIG_FILE
    file = directory / str(version) / (config.default_model_filename or "model.onnx")
    if not file.is_file():
        raise LoadError(f"{file}: there is no such file.")
    labels = read_labels(directory, config)
    tuning = read_tuning(path, config, cores=cores(settings.cpu_threads))
    instances = Instances(label, file, config, tuning, settings)
    session = instances.sessions[0]
    full = complete(path, config, session.inputs, session.outputs)
    instances.state(full)
    inputs, outputs = offered(full, session.inputs, full.input), offered(full, session.outputs, full.output)
    names = [spec.name for spec in outputs]
    sequences = read_sequences(directory, label, full, session.inputs, session.outputs)
    fed = sequences.fed(session.inputs) if sequences is not None else []
    WarmUp(directory, full, inputs, fed).run(label, instances.sessions, names)
    policy = sequences.batches if sequences is not None else batch_policy(path, full)
    pace = Pace()
    if settings.measure_seconds:
        most = 1 if policy.preferred else max(1, policy.most_items)
        taken = time_batches(label, session, [*inputs, *fed], names, most=most, seconds=settings.measure_seconds)
        if taken and most > 1:
            policy = policy.limited_to(_state_worth(label, full, taken))
        if taken and session.stays_in_thread:
            feeds = zeros([*inputs, *fed], 1) or {}
            size = sum(array.nbytes for array in feeds.values())
            pace = Pace(seconds=taken[1], size=size, wide=instances.wide(feeds, names, taken[1]))
    signature = Signature(
        label,
        inputs,
        outputs,
        full.max_batch_size,
        optional=[spec.name for spec in inputs if spec.optional],
        labels=labels,
        most_texts=settings.bytes_elements,
    )
    return _Opened(full, signature, instances.sessions, policy, pace, sequences)


def _state_worth(label: str, config: config_pb.ModelConfig, taken: Mapping[int, float]) -> int:
    """Say how large a batch pays, in the log and for ModelConfig, and return it."""
    pays = largest_worthwhile(taken)
    runs = ", ".join(f"{items}: {seconds * 1e3:.3g}" for items, seconds in taken.items())
    _LOG.info("model %s gains from batches of up to %d (milliseconds of a run by items: %s)", label, pays, runs)
    config.parameters[BATCH_PARAMETER].string_value = str(pays)
    config.parameters[MILLISECONDS_PARAMETER].string_value = runs
    return pays
