"""onnxruntime sessions: on which providers, with how many threads, and what they really run on."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # pyright: ignore[reportAttributeAccessIssue]

from mediamesh.inference.config import LoadError
from mediamesh.inference.datatypes import BY_ONNX, TensorSpec
from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, Any]

__all__ = ["CPU", "CUDA", "Session", "cores", "preferred_providers"]

_LOG = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16


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


class Session:
    """A model in memory; may be run by many threads at once.

    Args:
        label: What errors call the model.
        path: The ONNX file.
        providers: Execution providers to ask for, best first.
        threads: Threads that one run uses.
        device: Number of the GPU.

    Raises:
        LoadError: onnxruntime refuses the file.
    """

    def __init__(self, label: str, path: Path, *, providers: Sequence[str], threads: int, device: int = 0) -> None:
        self._label = label
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between runs steal the core from the event loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Without VNNI the fast 8-bit kernels saturate at 16 bits and give other answers: right goes before fast.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                path,
                options,
                providers=[(name, {"device_id": str(device)}) if name != CPU else name for name in providers],
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise LoadError(f"{path}: {_sentence(error)}") from error
        self.inputs = [_spec(path, tensor) for tensor in self._session.get_inputs()]
        self.outputs = [_spec(path, tensor) for tensor in self._session.get_outputs()]
        self.providers = list(self._session.get_providers())
        self._bf16 = any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))
        for lost in (name for name in providers if name not in self.providers):
            _LOG.warning("%s runs on %s, not on %s: %s", path, ", ".join(self.providers), lost, _what_lacks(lost))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the model; the arrays returned are its own.

        Raises:
            InvalidRequest: the model does not take such inputs.
            MeshError: the model failed.
        """
        try:
            if self._bf16:
                return self._run_values(inputs, outputs)
            arrays: list[Array] = self._session.run(outputs, inputs)
        except ort_state.InvalidArgument as error:
            raise InvalidRequest(f"Model {self._label} does not take these inputs: {_sentence(error)}") from error
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise MeshError(f"Model {self._label} failed: {_sentence(error)}") from error
        return arrays

    def _run_values(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run a model with BF16 tensors, which numpy does not know: their bits travel as uint16."""
        kinds = {spec.name: spec.datatype for spec in (*self.inputs, *self.outputs)}
        make, make_typed = ort.OrtValue.ortvalue_from_numpy, ort.OrtValue.ortvalue_from_numpy_with_onnx_type
        feeds = {
            name: make_typed(array, _ONNX_BFLOAT16) if kinds[name] == "BF16" else make(array)
            for name, array in inputs.items()
        }
        values = self._session.run_with_ort_values(outputs, feeds)
        return [
            _bits(value) if kinds[name] == "BF16" else value.numpy()
            for name, value in zip(outputs, values, strict=True)
        ]


def _bits(value: Any) -> Array:
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, np.uint16).reshape(value.shape())


def _spec(path: Path, tensor: Any) -> TensorSpec:
    datatype = BY_ONNX.get(tensor.type)
    if datatype is None:
        raise LoadError(f"{path}: {tensor.name!r} is a {tensor.type}, which no request can hold.")
    return TensorSpec(
        tensor.name, datatype, tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    )


def _what_lacks(provider: str) -> str:
    """Say why a provider that is installed did not start: mostly a library that the linker does not find."""
    short = provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort_state.__file__).with_name(f"libonnxruntime_providers_{short}.so")
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return "its libraries load, so there is no usable device"


def _sentence(error: Exception) -> str:
    """Return the first line of onnxruntime's text without its tag."""
    text = str(error).partition(" : ")[2] or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
