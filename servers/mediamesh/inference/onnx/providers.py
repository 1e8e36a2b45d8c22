"""Execution providers: which to ask for, with which options, and what to say when one does not start."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # pyright: ignore[reportAttributeAccessIssue]

from mediamesh.inference.configuration.config import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mediamesh.api.inference.v2 import model_config_pb2 as pb
    from mediamesh.inference.onnx.tuning import Tuning

__all__ = ["CPU", "CUDA", "TENSORRT", "Provider", "accelerated", "cores", "preferred_providers", "what_lacks"]

_LOG = logging.getLogger(__name__)
# A provider's name and its options.
Provider: TypeAlias = tuple[str, dict[str, str]]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
# What Triton calls the accelerators of its onnxruntime backend.
_GPU_ACCELERATORS = {"tensorrt": TENSORRT, "cuda": CUDA}
_CPU_ACCELERATORS = {"openvino": OPENVINO}
# Triton's names for options of the TensorRT provider; any other is passed on when it begins with trt_.
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}
_BOOLEANS = {"true": "1", "false": "0"}


def cores(limit: int) -> int:
    """Return how many cores the process may use, at most ``limit`` where that is not 0."""
    own = len(os.sched_getaffinity(0))
    return min(own, limit) if limit else own


def preferred_providers(wanted: Sequence[str]) -> list[str]:
    """Return the providers to ask for, best first, CPU last; what is wanted and missing is said as a warning.

    Args:
        wanted: Names in order of preference; none means CUDA where the installed onnxruntime offers it.
    """
    offered = ort.get_available_providers()
    for missing in (name for name in wanted if name not in offered):
        _LOG.warning(
            "onnxruntime %s has no %s; it has %s. mediamesh[gpu] brings the build for CUDA.",
            ort.__version__, missing, ", ".join(offered),
        )  # fmt: skip
    chosen = [name for name in wanted or (CUDA,) if name in offered and name != CPU]
    if CUDA in chosen:
        # CUDA and cuDNN come as wheels, out of the linker's sight.
        ort.preload_dlls()
    return [*chosen, CPU]


def accelerated(
    path: Path, config: pb.ModelConfig, tuning: Tuning, names: Sequence[str], *, device: int
) -> list[Provider]:
    """Return the providers of one session with their options; accelerators of the configuration come first.

    Args:
        path: The configuration's file, for errors.
        config: The configuration.
        tuning: What it says beside accelerators.
        names: Providers in order of preference, from :func:`preferred_providers`; the CPU alone for KIND_CPU.
        device: Number of the GPU.

    Raises:
        LoadError: an accelerator or one of its parameters is unknown, or the installed onnxruntime has none such.
    """
    accelerators = config.optimization.execution_accelerators
    gpu = _options(path, "gpu", accelerators.gpu_execution_accelerator, _GPU_ACCELERATORS)
    cpu = _options(path, "cpu", accelerators.cpu_execution_accelerator, _CPU_ACCELERATORS)
    offered = ort.get_available_providers()
    if absent := [name for name in cpu if name not in offered]:
        raise LoadError(
            f"{path}: cpu_execution_accelerator: onnxruntime {ort.__version__} has no {absent[0]}; "
            f"it has {', '.join(offered)}."
        )
    on_gpu = any(name in {CUDA, TENSORRT} for name in names)
    if not on_gpu:
        if gpu and config.instance_group:
            _LOG.warning("%s: gpu_execution_accelerator: has no effect, the instances are on the CPU", path)
        return [*cpu.items(), (CPU, {})]
    if absent := [name for name in gpu if name not in offered]:
        _LOG.warning("%s: gpu_execution_accelerator: onnxruntime has no %s; CUDA is taken", path, ", ".join(absent))
    wanted = [*(name for name in gpu if name in offered and name not in names), *names]
    # TensorRT leaves to CUDA what it cannot run, so it goes first.
    wanted.sort(key=lambda name: [TENSORRT, CUDA].index(name) if name in {TENSORRT, CUDA} else 2)
    if TENSORRT in wanted and CUDA not in wanted and CUDA in offered:
        wanted.insert(1, CUDA)
    return [(name, _gpu_options(name, gpu.get(name, {}), tuning, device)) for name in wanted]


def what_lacks(provider: str) -> str:
    """Say why a provider that is installed did not start: mostly a library that the linker does not find."""
    short = provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort_state.__file__).with_name(f"libonnxruntime_providers_{short}.so")
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return "its libraries load, so there is no usable device"


def _gpu_options(name: str, given: Mapping[str, str], tuning: Tuning, device: int) -> dict[str, str]:
    if name == CPU:
        return {}
    options = {"device_id": str(device)}
    if name == CUDA:
        options |= tuning.cuda
        if tuning.cuda_graphs:
            options["enable_cuda_graph"] = "1"
    if name == TENSORRT and tuning.cuda_graphs:
        options["trt_cuda_graph_enable"] = "1"
    return options | dict(given)


def _options(
    path: Path,
    device: str,
    accelerators: Iterable[pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator],
    known: Mapping[str, str],
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for accelerator in accelerators:
        where = f"{path}: {device}_execution_accelerator"
        if accelerator.name not in known:
            expected = " or ".join(repr(name) for name in known)
            raise LoadError(f"{where}: name: {accelerator.name!r} is not supported, expected {expected}.")
        parameters = accelerator.parameters.items()
        provider = known[accelerator.name]
        if provider == TENSORRT:
            found[provider] = _tensorrt(where, dict(parameters))
        else:
            found[provider] = {key: _BOOLEANS.get(value, value) for key, value in parameters}
    return found


def _tensorrt(where: str, parameters: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value not in _PRECISIONS:
                raise LoadError(f"{where}: precision_mode: {value!r}, expected FP32, FP16 or INT8.")
            options |= _PRECISIONS[value]
        elif key in _TENSORRT_NAMES or key.startswith("trt_"):
            options[_TENSORRT_NAMES.get(key, key)] = _BOOLEANS.get(value, value)
        else:
            raise LoadError(f"{where}: parameters[{key}]: TensorRT has no such option.")
    return options
