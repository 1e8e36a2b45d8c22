"""How a session is set up beside its provider: the optimization policy and the parameters of config.pbtxt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.configuration.fields import PARAMETERS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Tuning", "read_tuning"]

_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"
# Triton's numbers for the levels of onnxruntime: 0, or nothing, is all of them.
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# The kernel's scale, -20 to 19: what Triton gives PRIORITY_MIN.
_LEAST_URGENT = 19
_ALGORITHMS = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
_STRATEGIES = ("kNextPowerOfTwo", "kSameAsRequested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a model's configuration says about its sessions.

    Attributes:
        threads: Threads of one run; 0 leaves it to the partition of the cores.
        parallel_branches: Threads that run branches of the graph side by side; 0 runs nodes in sequence.
        level: Which graph optimizations are made.
        arena: Whether freed memory is kept for the next run.
        memory_pattern: Whether the memory of a run is planned ahead.
        session_entries: Further entries of the session's configuration.
        shrinkage: Devices whose memory is given back after every run, such as ``cpu:0``.
        cuda: Options of the CUDA provider.
        cuda_graphs: Whether runs are recorded once and replayed.
        pinned_inputs: Whether inputs pass through pinned memory on their way to a GPU.
        pinned_outputs: Whether outputs do on their way back.
        nice: Added to the niceness of the threads that run the model.
    """

    threads: int = 0
    parallel_branches: int = 0
    level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    arena: bool = True
    memory_pattern: bool = True
    session_entries: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shrinkage: tuple[str, ...] = ()
    cuda: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cuda_graphs: bool = False
    pinned_inputs: bool = True
    pinned_outputs: bool = True
    nice: int = 0

    def options(self, threads: int) -> ort.SessionOptions:
        """Return the options of a session whose runs use so many threads."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = max(1, self.parallel_branches)
        parallel, sequential = ort.ExecutionMode.ORT_PARALLEL, ort.ExecutionMode.ORT_SEQUENTIAL
        options.execution_mode = parallel if self.parallel_branches else sequential
        options.graph_optimization_level = self.level
        options.enable_cpu_mem_arena = self.arena
        # onnxruntime plans no memory for a graph whose nodes run in parallel.
        options.enable_mem_pattern = self.memory_pattern and not self.parallel_branches
        # Threads that spin between runs steal the core from the event loop; within a run they save up to a fifth.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Without VNNI the fast 8-bit kernels saturate at 16 bits and give other answers: right goes before fast.
        options.add_session_config_entry("session.x64quantprecision", "1")
        for key, value in self.session_entries.items():
            options.add_session_config_entry(key, value)
        options.log_severity_level = 3
        return options

    def run_options(self, devices: Collection[str]) -> ort.RunOptions | None:
        """Return the options of every run of a session that has arenas on these kinds of devices."""
        if not (kept := [device for device in self.shrinkage if device.partition(":")[0] in devices]):
            return None
        options = ort.RunOptions()
        options.add_run_config_entry(_SHRINKAGE, ";".join(kept))
        return options


def read_tuning(path: Path, config: pb.ModelConfig, *, cores: int) -> Tuning:
    """Return what a configuration says about its sessions.

    Args:
        path: The configuration's file, for errors.
        config: The configuration.
        cores: Threads for parallel branches where it asks for the default.

    Raises:
        LoadError: a value is none that onnxruntime knows.
    """
    read = _Parameters(path, config)
    optimization = config.optimization
    if optimization.graph.level not in _LEVELS:
        raise LoadError(f"{path}: optimization.graph.level: {optimization.graph.level}, expected -1, 0, 1 or 2.")
    parallel = read.number("execution_mode", 0, most=1)
    branches = read.number("inter_op_thread_count", 0, most=1024)
    shrinkage = read.text(_SHRINKAGE)
    if shrinkage and not all(_is_device(part) for part in shrinkage.split(";")):
        raise LoadError(f"{path}: parameters[{_SHRINKAGE}]: {shrinkage!r}, expected such as 'cpu:0;gpu:0'.")
    arena = bool(read.number("enable_mem_arena", 1, most=1))
    if "cpu" in shrinkage and not arena:
        raise LoadError(f"{path}: parameters[{_SHRINKAGE}]: {shrinkage!r}, but enable_mem_arena is 0.")
    minimum = optimization.priority == pb.ModelOptimizationPolicy.PRIORITY_MIN
    return Tuning(
        threads=read.number("intra_op_thread_count", 0, most=1024),
        parallel_branches=(branches or cores) if parallel else 0,
        level=_LEVELS[optimization.graph.level],
        arena=arena,
        memory_pattern=bool(read.number("enable_mem_pattern", 1, most=1)),
        session_entries=read.entries(_DEVICE_INITIALIZERS, {"0", "1"}),
        shrinkage=tuple(shrinkage.split(";")) if shrinkage else (),
        cuda=_cuda(read),
        cuda_graphs=optimization.cuda.graphs,
        # As in Triton both are on unless they are switched off.
        pinned_inputs=not optimization.HasField("input_pinned_memory") or optimization.input_pinned_memory.enable,
        pinned_outputs=not optimization.HasField("output_pinned_memory") or optimization.output_pinned_memory.enable,
        nice=_LEAST_URGENT if minimum else 0,
    )


class _Parameters:
    """The map ``parameters`` of a configuration, which holds texts."""

    def __init__(self, path: Path, config: pb.ModelConfig) -> None:
        self._path = path
        self._texts = {
            name: parameter.string_value for name, parameter in config.parameters.items() if name in PARAMETERS
        }

    def text(self, name: str) -> str:
        return self._texts.get(name, "")

    def number(self, name: str, default: int, *, most: int) -> int:
        """Return a parameter that is a number from 0 on."""
        given = self._texts.get(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal() and len(given) < 20) or int(given) > most:
            raise LoadError(f"{self._path}: parameters[{name}]: {given!r}, expected 0 to {most}.")
        return int(given)

    def entries(self, name: str, allowed: set[str]) -> dict[str, str]:
        """Return a parameter that is passed on as it is, if it is there."""
        given = self._texts.get(name)
        if given is not None and given not in allowed:
            raise LoadError(f"{self._path}: parameters[{name}]: {given!r}, expected {' or '.join(sorted(allowed))}.")
        return {} if given is None else {name: given}

    def mapped(self, name: str, value: Callable[[int], str], *, most: int) -> dict[str, str]:
        """Return a parameter that is a number, in the provider's own spelling, if it is there."""
        return {name: value(self.number(name, 0, most=most))} if name in self._texts else {}


def _cuda(read: _Parameters) -> dict[str, str]:
    """Return what Triton takes as parameters of the model, though it is the CUDA provider's."""
    return {
        **read.mapped("cudnn_conv_algo_search", _ALGORITHMS.__getitem__, most=2),
        **read.mapped("arena_extend_strategy", _STRATEGIES.__getitem__, most=1),
        **read.mapped("gpu_mem_limit", str, most=(1 << 64) - 1),
        **read.mapped("do_copy_in_default_stream", str, most=1),
    }


def _is_device(text: str) -> bool:
    kind, _, number = text.partition(":")
    return kind in {"cpu", "gpu"} and number.isascii() and number.isdecimal()
