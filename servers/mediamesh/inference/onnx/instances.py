"""How many instances of a model run, where, and with how many threads each: ``instance_group`` of config.pbtxt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import onnxruntime as ort

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError
from mediamesh.inference.configuration.reshape import Reshapes
from mediamesh.inference.onnx.providers import CPU, CUDA, accelerated, cores, preferred_providers
from mediamesh.inference.onnx.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import numpy as np

    from mediamesh.inference.onnx.tuning import Tuning
    from mediamesh.inference.settings import Settings

    Array = np.ndarray[Any, Any]

__all__ = ["PROVIDERS_PARAMETER", "Instances"]

PROVIDERS_PARAMETER = "execution_providers"
_Group = pb.ModelInstanceGroup
# A run on all cores must take this much less than one on a single core, and a run on one core so long, for a second
# session to be worth its memory.
_LEAST_GAIN = 0.8
_WORTH_MORE_CORES_SECONDS = 1e-3
_LARGEST_HELD_TWICE = 128 << 20
_RUNS = 5


class Instances:
    """The sessions of one version of a model; each is one worker's, and several workers may share one.

    On a CPU a run on one thread for each core reaches more than one run on all of them, so without a count there is a
    single-threaded worker for each core. A count divides the cores among all instances of the model.

    Args:
        label: What errors call the model.
        file: The ONNX file.
        config: The configuration as read; :meth:`state` writes into a completed one.
        tuning: What it says about sessions.
        settings: The server's.

    Raises:
        LoadError: onnxruntime refuses the file, or a group cannot be had.
    """

    def __init__(self, label: str, file: Path, config: pb.ModelConfig, tuning: Tuning, settings: Settings) -> None:
        self._label = label
        self._file = file
        self._path = file.parent.parent / CONFIG_FILE
        self._config = config
        self._tuning = tuning
        self._preferred = preferred_providers(settings.providers)
        self._cores = cores(settings.cpu_threads)
        self._alone: Session | None = None
        groups = list(config.instance_group) or [_Group()]
        self._threads = tuning.threads or self._share(groups)
        self._groups: list[pb.ModelInstanceGroup] = []
        self.sessions: list[Session] = []
        for number, group in enumerate(groups):
            self._open(number, group)

    def state(self, config: pb.ModelConfig) -> None:
        """Write into a configuration how the model really runs, for ModelConfig to tell."""
        del config.instance_group[:]
        config.instance_group.extend(self._groups)
        providers = dict.fromkeys(provider for session in self.sessions for provider in session.providers)
        config.parameters[PROVIDERS_PARAMETER].string_value = ",".join(providers)

    def wide(self, feeds: Mapping[str, Array], outputs: Sequence[str], seconds: float) -> Session | None:
        """Return one more session, of all cores, for a request that is alone; None where it would gain too little.

        Who counts instances or threads has divided the cores; and a large model is not held twice.

        Args:
            feeds: One item.
            outputs: Names of the outputs.
            seconds: What a run of it takes on one core.
        """
        counted = self._tuning.threads or any(group.count for group in self._config.instance_group)
        if counted or self._cores == 1 or seconds < _WORTH_MORE_CORES_SECONDS:
            return None
        if self._file.stat().st_size > _LARGEST_HELD_TWICE or not self.sessions[0].stays_in_thread:
            return None
        session = self._session([CPU], threads=self._cores)
        taken = [_seconds_of_run(session, feeds, outputs) for _ in range(1 + _RUNS)][1:]
        return session if min(taken) < _LEAST_GAIN * seconds else None

    def _share(self, groups: Sequence[pb.ModelInstanceGroup]) -> int:
        """Return the threads of one instance on the CPU: its part of the cores, where instances are counted."""
        counts = [group.count for group in groups if not self._may_use_gpu(group)]
        if not all(counts):
            return 1
        return max(1, self._cores // max(1, sum(counts)))

    def _may_use_gpu(self, group: pb.ModelInstanceGroup) -> bool:
        return group.kind != _Group.KIND_CPU and self._preferred[0] != CPU

    def _open(self, number: int, group: pb.ModelInstanceGroup) -> None:
        where = f"{self._path}: instance_group {group.name!r}" if group.name else f"{self._path}: instance_group"
        sessions = self._on_gpus(group) if self._may_use_gpu(group) else []
        on_gpu = bool(sessions)
        if not on_gpu:
            if group.kind == _Group.KIND_GPU:
                raise LoadError(f"{where}: kind: KIND_GPU, but onnxruntime runs the model on {CPU}.")
            sessions = self._on_cpu(group)
        actual = self._groups_entry(number, group, on_gpu=on_gpu)
        actual.count = len(sessions) // (len(actual.gpus) or 1)
        self.sessions += sessions

    def _groups_entry(self, number: int, group: pb.ModelInstanceGroup, *, on_gpu: bool) -> pb.ModelInstanceGroup:
        actual = _Group(
            name=group.name or f"{self._path.parent.name}_{number}",
            kind=_Group.KIND_GPU if on_gpu else _Group.KIND_CPU,
            gpus=(group.gpus or _gpus()) if on_gpu else (),
        )
        self._groups.append(actual)
        return actual

    def _on_gpus(self, group: pb.ModelInstanceGroup) -> list[Session]:
        """Return the sessions of a group on its GPUs; none when onnxruntime runs the model on the CPU instead."""
        sessions: list[Session] = []
        for device in group.gpus or _gpus():
            first = self._session(self._preferred, device)
            if first.providers[0] == CPU:
                return []
            # A recorded graph replays at fixed addresses: its session is one worker's alone.
            apart = self._tuning.cuda_graphs
            count = group.count or 1
            sessions += [first, *(self._session(self._preferred, device) if apart else first for _ in range(count - 1))]
        return sessions

    def _on_cpu(self, group: pb.ModelInstanceGroup) -> list[Session]:
        count = group.count or self._cores
        if self._threads == 1:
            # A single-threaded session runs in the thread that calls it: all workers share it, and its weights.
            self._alone = self._alone or self._session([CPU])
            return [self._alone] * count
        return [self._session([CPU]) for _ in range(count)]

    def _session(self, names: Sequence[str], device: int = 0, threads: int = 0) -> Session:
        return Session(
            self._label,
            self._file,
            providers=accelerated(self._path, self._config, self._tuning, names, device=device),
            threads=threads or self._threads,
            tuning=self._tuning,
            reshapes=Reshapes(self._config),
        )


def _gpus() -> list[int]:
    """Return the numbers of the GPUs that onnxruntime sees; 0 when it does not tell."""
    seen = sum(device.ep_name == CUDA for device in ort.get_ep_devices())
    return list(range(max(1, seen)))


def _seconds_of_run(session: Session, feeds: Mapping[str, Array], outputs: Sequence[str]) -> float:
    """Run a model once and return how long it took."""
    begin = time.perf_counter()
    session.run(feeds, outputs)
    return time.perf_counter() - begin
