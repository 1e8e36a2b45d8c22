"""Runs through IO binding: inputs are copied to the device once, outputs stay there until the run is over.

With CUDA graphs a run of a shape is recorded once and replayed, which needs inputs and outputs at the same addresses
each time: the buffers of a shape are kept. Everything here runs on the CPU as well, where the tests run it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # pyright: ignore[reportAttributeAccessIssue]

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from mediamesh.inference.onnx.tuning import Tuning

    Array = np.ndarray[Any, Any]

__all__ = ["BoundRuns"]

_LOG = logging.getLogger(__name__)
# Shapes whose buffers, and graphs, are kept by each thread; the one used longest ago makes room.
_MOST_SHAPES = 16
# The key under which onnxruntime files a recorded graph, and the value that records none.
_GRAPH_ID, _NO_GRAPH = "gpu_graph_id", "-1"


@dataclass(slots=True)
class _Shape:
    """What is kept for requests of one shape.

    Attributes:
        binding: Inputs and outputs, bound.
        inputs: Memory of the inputs on the device.
        staging: Pinned memory that inputs pass through, where there is such.
        graph: Number of its graph; -1 records none.
        fixed: Whether the outputs have memory of their own.
    """

    binding: Any
    inputs: dict[str, Any]
    staging: dict[str, Any]
    graph: int
    fixed: bool = False


class BoundRuns:
    """The bindings of one worker to one session; its runs must not overlap.

    Args:
        session: The session.
        device: Kind and number of its device, such as ``("cuda", 0)``.
        tuning: Whether graphs are recorded and memory is pinned.
    """

    def __init__(self, session: Any, device: tuple[str, int], tuning: Tuning) -> None:
        self._session = session
        self._device = device
        self._tuning = tuning
        self._graphs = tuning.cuda_graphs
        self._pinned = _pinned_memory(session) if tuning.pinned_inputs else None
        self._pinned_outputs = _pinned_memory(session) if tuning.pinned_outputs else None
        self._shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
        self._free = list(range(_MOST_SHAPES, 0, -1))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the model; the arrays returned are the caller's."""
        shape = self._shape(inputs, outputs)
        for name, array in inputs.items():
            self._upload(shape, name, array)
        shape.binding.synchronize_inputs()
        if self._graphs and not shape.fixed:
            # Only a run tells the shapes of the outputs; it must not be recorded, as it gives them memory of its own.
            self._execute(shape, _NO_GRAPH)
            self._fix_outputs(shape, outputs)
        self._execute(shape, str(shape.graph))
        shape.binding.synchronize_outputs()
        return self._download(shape.binding.get_outputs())

    def _shape(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> _Shape:
        key = (tuple(outputs), *((name, array.shape) for name, array in inputs.items()))
        if key in self._shapes:
            self._shapes.move_to_end(key)
            return self._shapes[key]
        if len(self._shapes) >= _MOST_SHAPES:
            self._forget(self._shapes.popitem(last=False)[1])
        binding = self._session.io_binding()
        values, staging = {}, {}
        for name, array in inputs.items():
            values[name] = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *self._device)
            binding.bind_ortvalue_input(name, values[name])
            if self._pinned is not None:
                staging[name] = self._on_host(self._pinned, array.shape, array.dtype.type)
        for name in outputs:
            binding.bind_output(name, *self._device)
        shape = self._shapes[key] = _Shape(binding, values, staging, self._free.pop() if self._graphs else -1)
        return shape

    def _forget(self, shape: _Shape) -> None:
        if self._graphs:
            self._session.release_captured_graph(shape.graph)
            self._free.append(shape.graph)

    def _upload(self, shape: _Shape, name: str, array: Array) -> None:
        staging = shape.staging.get(name)
        if staging is None:
            shape.inputs[name].update_inplace(np.ascontiguousarray(array))
            return
        np.copyto(staging.numpy(), array)
        shape.inputs[name].update_inplace(staging)

    def _execute(self, shape: _Shape, graph: str) -> None:
        options = self._tuning.run_options({"cpu", "gpu"}) or ort.RunOptions()
        if self._graphs:
            options.add_run_config_entry(_GRAPH_ID, graph)
        self._session.run_with_iobinding(shape.binding, options)

    def _fix_outputs(self, shape: _Shape, outputs: Sequence[str]) -> None:
        for name, value in zip(outputs, shape.binding.get_outputs(), strict=True):
            own = ort.OrtValue.ortvalue_from_shape_and_type(value.shape(), value.element_type(), *self._device)
            shape.binding.bind_ortvalue_output(name, own)
        shape.fixed = True

    def _download(self, values: Sequence[Any]) -> list[Array]:
        if self._pinned_outputs is None:
            # On the CPU these are views of memory that the next run writes.
            return [value.numpy().copy() if value.device_name() == "cpu" else value.numpy() for value in values]
        staged = [self._on_host(self._pinned_outputs, value.shape(), value.element_type()) for value in values]
        for target, value in zip(staged, values, strict=True):
            target.update_inplace(value)
        return [np.array(target.numpy()) for target in staged]

    @staticmethod
    def _on_host(memory: Any, shape: Sequence[int], kind: Any) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, memory_info=memory)


def _pinned_memory(session: Any) -> Any:
    """Return where onnxruntime allocates pinned memory for a session's device; None where it offers none."""
    try:
        devices = [device for device in session.get_input_epdevices() if device is not None]
        found = [device.memory_info(ort_state.OrtDeviceMemoryType.HOST_ACCESSIBLE) for device in devices[:1]]
    except (RuntimeError, AttributeError, ort_state.Fail, ort_state.NotImplemented) as error:
        _LOG.info("no pinned memory: %s", error)
        return None
    return found[0] if found else None
