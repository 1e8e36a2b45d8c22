"""onnxruntime sessions: a model in memory, run by any number of threads."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # pyright: ignore[reportAttributeAccessIssue]

from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.datatypes import BY_ONNX, TensorSpec
from mediamesh.inference.onnx.bound import BoundRuns
from mediamesh.inference.onnx.providers import CPU, CUDA, TENSORRT, Provider, what_lacks
from mediamesh.inference.onnx.tuning import Tuning
from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mediamesh.inference.configuration.reshape import Reshapes

    Array = np.ndarray[Any, Any]

__all__ = ["Session"]

_LOG = logging.getLogger(__name__)
_ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16


class Session:
    """A model in memory; may be run by many threads at once.

    Args:
        label: What errors call the model.
        path: The ONNX file.
        providers: Execution providers to ask for, best first, with their options.
        threads: Threads that one run uses.
        tuning: What the configuration says beside that.
        reshapes: Tensors whose shape is not the one that callers see; ``inputs`` and ``outputs`` tell the model's own.

    Raises:
        LoadError: onnxruntime refuses the file or an option.
    """

    def __init__(
        self,
        label: str,
        path: Path,
        *,
        providers: Sequence[Provider],
        threads: int,
        tuning: Tuning | None = None,
        reshapes: Reshapes | None = None,
    ) -> None:
        self._label = label
        self._tuning = tuning or Tuning()
        self._reshapes = reshapes or None
        self._own = threading.local()
        self._recording = threading.Lock()
        self._recorded: BoundRuns | None = None
        try:
            self._session: Any = ort.InferenceSession(
                path,
                self._tuning.options(threads),
                providers=list(providers),
                # It would print, and run on another provider than it was told; what is lost is said below.
                enable_fallback=0,
            )
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise LoadError(f"{path}: {_sentence(error)}") from error
        self.inputs = [_spec(path, tensor) for tensor in self._session.get_inputs()]
        self.inputs += [
            _spec(path, tensor, optional=True)
            for tensor in self._session.get_overridable_initializers()
            if tensor.type in BY_ONNX
        ]
        self.outputs = [_spec(path, tensor) for tensor in self._session.get_outputs()]
        self.providers = list(self._session.get_providers())
        # Such a run takes nothing but the core of the thread that asks for it.
        alone = threads == 1 and not self._tuning.parallel_branches and not self._tuning.nice
        self.stays_in_thread = alone and self.providers == [CPU]
        self._kinds = {spec.name: spec.datatype for spec in (*self.inputs, *self.outputs)}
        self._bf16 = "BF16" in self._kinds.values()
        self._device = _device(self.providers, providers)
        self._run_options = self._tuning.run_options({"cpu", "gpu"} if self._device else {"cpu"})
        if self._tuning.shrinkage and self._device is None and any("gpu" in name for name in self._tuning.shrinkage):
            _LOG.warning("%s: memory of a GPU is not given back, as the model runs on the CPU", path)
        for lost in (name for name, _ in providers if name not in self.providers):
            _LOG.warning("%s runs on %s, not on %s: %s", path, ", ".join(self.providers), lost, what_lacks(lost))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the model; the arrays returned are its own.

        Raises:
            InvalidRequest: the model does not take such inputs.
            MeshError: the model failed.
        """
        if self._tuning.nice:
            self._yield_to_others()
        if self._reshapes is None:
            return self._run(inputs, outputs)
        return self._reshapes.outward(outputs, self._run(self._reshapes.inward(inputs), outputs))

    def _run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        try:
            if self._device is not None and self._bindable:
                return self._run_bound(self._device, inputs, outputs)
            if self._bf16:
                return self._run_values(inputs, outputs)
            arrays: list[Array] = self._session.run(outputs, inputs, self._run_options)
        except ort_state.InvalidArgument as error:
            raise InvalidRequest(f"Model {self._label} does not take these inputs: {_sentence(error)}") from error
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise MeshError(f"Model {self._label} failed: {_sentence(error)}") from error
        return arrays

    @property
    def _bindable(self) -> bool:
        # Neither texts nor what numpy has no type for can be copied to a device.
        return not self._bf16 and "BYTES" not in self._kinds.values()

    def _run_bound(self, device: tuple[str, int], inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run on a GPU, with bindings that no other run uses at the same time."""
        if not self._tuning.cuda_graphs:
            if getattr(self._own, "bound", None) is None:
                self._own.bound = BoundRuns(self._session, device, self._tuning)
            bound: BoundRuns = self._own.bound
            return bound.run(inputs, outputs)
        # A recorded graph, and so its memory, belongs to the session; such a session has one worker.
        with self._recording:
            if self._recorded is None:
                self._recorded = BoundRuns(self._session, device, self._tuning)
            return self._recorded.run(inputs, outputs)

    def _yield_to_others(self) -> None:
        """Let threads of other models go first; the kernel takes the number of a thread where it says process."""
        if not getattr(self._own, "nice", False):
            self._own.nice = True
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._tuning.nice)

    def _run_values(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run a model with BF16 tensors, which numpy does not know: their bits travel as uint16."""
        make, make_typed = ort.OrtValue.ortvalue_from_numpy, ort.OrtValue.ortvalue_from_numpy_with_onnx_type
        feeds = {
            name: make_typed(array, _ONNX_BFLOAT16) if self._kinds[name] == "BF16" else make(array)
            for name, array in inputs.items()
        }
        values = self._session.run_with_ort_values(outputs, feeds, self._run_options)
        return [
            _bits(value) if self._kinds[name] == "BF16" else value.numpy()
            for name, value in zip(outputs, values, strict=True)
        ]


def _device(running: Sequence[str], asked: Sequence[Provider]) -> tuple[str, int] | None:
    """Return the kind and number of the GPU that a session runs on."""
    options = dict(asked)
    for name in (TENSORRT, CUDA):
        if running[0] == name:
            return "cuda", int(options.get(name, {}).get("device_id", "0"))
    return None


def _bits(value: Any) -> Array:
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, np.uint16).reshape(value.shape())


def _spec(path: Path, tensor: Any, *, optional: bool = False) -> TensorSpec:
    datatype = BY_ONNX.get(tensor.type)
    if datatype is None:
        raise LoadError(f"{path}: {tensor.name!r} is a {tensor.type}, which no request can hold.")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(tensor.name, datatype, shape, optional=optional)


def _sentence(error: Exception) -> str:
    """Return the first line of onnxruntime's text without its tag."""
    text = str(error).partition(" : ")[2] or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
