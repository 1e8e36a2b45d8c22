"""The backend that runs ONNX files with onnxruntime."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.inference.backend import Backend
from mediamesh.inference.batcher import batching
from mediamesh.inference.completion import complete
from mediamesh.inference.config import CONFIG_FILE, LoadError
from mediamesh.inference.queue import Queue
from mediamesh.inference.session import CPU, Session, cores, preferred_providers
from mediamesh.inference.statistics import Statistics
from mediamesh.inference.tensors import Signature
from mediamesh.wire.errors import MeshError
from mediamesh.wire.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from mediamesh.inference.settings import Settings

__all__ = ["open_onnx"]

_LOG = logging.getLogger(__name__)
THREADS_PARAMETER = "intra_op_thread_count"
PROVIDERS_PARAMETER = "execution_providers"
_Group = config_pb.ModelInstanceGroup


@asynccontextmanager
async def open_onnx(
    directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings
) -> AsyncGenerator[Backend]:
    """Load an ONNX file for as long as the block lasts.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    label = f"{directory.name}/{version}"
    file = directory / str(version) / (config.default_model_filename or "model.onnx")
    if not file.is_file():
        raise LoadError(f"{file}: there is no such file.")
    sessions = await asyncio.to_thread(_sessions, label, file, config, settings)
    session = sessions[0]
    full = complete(directory / CONFIG_FILE, config, session.inputs, session.outputs)
    _state_truth(full, sessions)
    await asyncio.to_thread(_warm_up, label, session)
    policy = full.dynamic_batching.default_queue_policy
    queue = Queue(
        label,
        max_requests=min(policy.max_queue_size or settings.queue_requests, settings.queue_requests),
        max_bytes=settings.queue_bytes,
        max_items=full.max_batch_size if full.HasField("dynamic_batching") else 0,
    )
    signature = Signature(label, session.inputs, session.outputs, full.max_batch_size)
    _LOG.info("model %s on %s, %d workers", label, ", ".join(session.providers), len(sessions))
    async with batching(label, sessions, queue, Statistics(directory.name, str(version))) as batcher:
        yield Backend(full, signature, batcher, tuple(session.providers))


def _sessions(label: str, file: Path, config: config_pb.ModelConfig, settings: Settings) -> list[Session]:
    """Return a session for every worker; single-threaded ones share one, which runs in the thread that calls it."""
    group = config.instance_group[0] if config.instance_group else _Group()
    where = f"{file.parent.parent / CONFIG_FILE}: instance_group"
    if group.kind == _Group.KIND_MODEL or group.count < 0:
        raise LoadError(f"{where}: expected KIND_AUTO, KIND_CPU or KIND_GPU, and a count of 0 or more.")
    providers = [CPU] if group.kind == _Group.KIND_CPU else preferred_providers(settings.providers)
    usable = cores(settings.cpu_threads)
    count = group.count or usable
    threads = _threads(where, config) or (max(1, usable // count) if group.count else 1)
    first = Session(label, file, providers=providers, threads=threads, device=group.gpus[0] if group.gpus else 0)
    if first.providers[0] != CPU:
        more = [Session(label, file, providers=providers, threads=1, device=device) for device in group.gpus[1:]]
        return [session for session in (first, *more) for _ in range(group.count or 1)]
    if group.kind == _Group.KIND_GPU:
        raise LoadError(f"{where}: kind: KIND_GPU, but onnxruntime runs the model on {', '.join(first.providers)}.")
    if threads == 1:
        return [first] * count
    return [first, *(Session(label, file, providers=[CPU], threads=threads) for _ in range(count - 1))]


def _threads(where: str, config: config_pb.ModelConfig) -> int:
    given = config.parameters[THREADS_PARAMETER].string_value if THREADS_PARAMETER in config.parameters else "0"
    if not given.isdecimal() or int(given) > 1024:
        raise LoadError(f"{where}: parameters[{THREADS_PARAMETER}]: {given!r}, expected 0 to 1024.")
    return int(given)


def _state_truth(config: config_pb.ModelConfig, sessions: list[Session]) -> None:
    """Write into the configuration how the model really runs, for ModelConfig to tell."""
    on_cpu = sessions[0].providers[0] == CPU
    group = config.instance_group[0] if config.instance_group else config.instance_group.add()
    group.kind = _Group.KIND_CPU if on_cpu else _Group.KIND_GPU
    group.count = len(sessions) // (1 if on_cpu else max(1, len(group.gpus)))
    group.name = group.name or f"{config.name}_0"
    config.parameters[PROVIDERS_PARAMETER].string_value = ",".join(sessions[0].providers)


def _warm_up(label: str, session: Session) -> None:
    """Run once on zeros where all sizes but the first are known: the first run allocates."""
    specs = session.inputs
    if any(spec.datatype == "BYTES" or -1 in spec.shape[1:] for spec in specs):
        return
    zeros: dict[str, Any] = {
        spec.name: np.zeros([max(1, size) for size in spec.shape], DTYPES[spec.datatype]) for spec in specs
    }
    try:
        session.run(zeros, [spec.name for spec in session.outputs])
    except MeshError as error:
        _LOG.info("model %s was not warmed up, as it does not run on zeros: %s", label, error)
