"""Requests held against what a model takes, and its outputs packed as it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.errors import InvalidRequest, NotImplementedByServer
from mediamesh.wire.tensors import DTYPES, from_contents, from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.wire.infer_request import InferRequest

    Array = np.ndarray[Any, Any]

__all__ = ["Bound", "Signature"]

_SHARED_MEMORY = "shared_memory_region"


class Bound(NamedTuple):
    """A request's tensors, checked.

    Attributes:
        inputs: Tensors by name.
        outputs: Names of the wanted outputs.
        items: Size of the batch dimension; 1 for a model that has none.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    items: int


class Signature:
    """What a model takes and gives.

    Args:
        label: What errors call the model.
        inputs: Its inputs, all of which a request must hold.
        outputs: Its outputs.
        max_batch_size: Largest size of the batch dimension; 0 when there is none.
    """

    def __init__(
        self, label: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch_size: int
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = {spec.name: spec for spec in outputs}
        self._label = label
        self._all_outputs = tuple(self.outputs)
        self._max_batch_size = max_batch_size

    def bind(self, request: InferRequest) -> Bound:
        """Check a request and return its tensors; views of its bytes where they are raw.

        Raises:
            InvalidRequest: it does not fit the model; names field, tensor, and what was expected and given.
            NotImplementedByServer: it asks for shared memory or a classification.
        """
        message, raw = request
        if raw and len(raw) != len(message.inputs):
            raise self._invalid(
                "raw_input_contents", f"has {len(raw)} entries for {len(message.inputs)} inputs, expected one for each"
            )
        inputs: dict[str, Array] = {}
        for index, tensor in enumerate(message.inputs):
            if tensor.name in inputs:
                raise self._invalid(f"inputs[{index}].name", f"input {tensor.name!r} is there twice")
            inputs[tensor.name] = self._input(index, tensor, raw[index] if raw else None)
        if len(inputs) < len(self.inputs):
            missing = [f"{name!r} ({spec})" for name, spec in self.inputs.items() if name not in inputs]
            raise self._invalid("inputs", f"lacks input {', '.join(missing)}")
        return Bound(inputs, self._wanted(message.outputs), self._items(inputs))

    def response(
        self, request: pb.ModelInferRequest, version: str, names: Sequence[str], arrays: Sequence[Array]
    ) -> pb.ModelInferResponse:
        """Pack the outputs of a run."""
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
        for name, array in zip(names, arrays, strict=True):
            response.outputs.add(name=name, datatype=self.outputs[name].datatype, shape=array.shape)
            response.raw_output_contents.append(bytes(to_raw(array)))
        return response

    def _input(
        self, index: int, tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | memoryview | None
    ) -> Array:
        spec = self.inputs.get(tensor.name)
        if spec is None:
            known = ", ".join(f"{name!r}" for name in self.inputs)
            raise self._invalid(f"inputs[{index}].name", f"has no input {tensor.name!r}; it takes {known}")
        if tensor.parameters and _SHARED_MEMORY in tensor.parameters:
            raise NotImplementedByServer(f"Input {tensor.name!r}: this server has no shared memory; send its contents.")
        if tensor.datatype != spec.datatype:
            raise self._invalid(
                f"inputs[{index}].datatype", f"input {spec.name!r} is {tensor.datatype!r}, expected {spec.datatype}"
            )
        shape = tuple(tensor.shape)
        if not spec.admits(shape) or min(shape, default=0) < 0:
            raise self._invalid(
                f"inputs[{index}].shape", f"input {spec.name!r} has shape {list(shape)}, expected {list(spec.shape)}"
            )
        if raw is not None and tensor.HasField("contents"):
            raise self._invalid(f"inputs[{index}].contents", f"input {spec.name!r} has raw contents too")
        try:
            array = (
                from_contents(spec.datatype, shape, tensor.contents)
                if raw is None
                else from_raw(spec.datatype, shape, raw)
            )
        except ValueError as error:
            field = f"inputs[{index}].contents" if raw is None else f"raw_input_contents[{index}]"
            raise self._invalid(field, f"input {spec.name!r} ({spec.datatype} {list(shape)}) {error}") from None
        return self._texts(field=f"inputs[{index}]", array=array) if array.dtype.hasobject else array

    def _texts(self, field: str, array: Array) -> Array:
        # onnxruntime's strings are UTF-8 texts.
        texts = np.empty(array.size, DTYPES["BYTES"])
        try:
            texts[:] = [element.decode() for element in array.ravel()]
        except UnicodeDecodeError as error:
            raise self._invalid(field, f"a BYTES element is not UTF-8: {error}") from None
        return texts.reshape(array.shape)

    def _items(self, inputs: Mapping[str, Array]) -> int:
        if not self._max_batch_size:
            return 1
        sizes = {name: array.shape[0] for name, array in inputs.items()}
        items = next(iter(sizes.values()), 1)
        if any(size != items for size in sizes.values()):
            raise self._invalid("inputs", f"the first dimensions differ: {sizes}; expected one batch size")
        if not 1 <= items <= self._max_batch_size:
            raise self._invalid("inputs", f"the batch has {items} items, expected 1 to {self._max_batch_size}")
        return items

    def _wanted(self, requested: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[str, ...]:
        if not requested:
            return self._all_outputs
        for index, output in enumerate(requested):
            if output.name not in self.outputs:
                known = ", ".join(f"{name!r}" for name in self.outputs)
                raise self._invalid(f"outputs[{index}].name", f"has no output {output.name!r}; it gives {known}")
            for refused in ("classification", _SHARED_MEMORY):
                if refused in output.parameters:
                    raise NotImplementedByServer(f"Output {output.name!r}: this server does not do {refused}.")
        return tuple(dict.fromkeys(output.name for output in requested))

    def _invalid(self, field: str, text: str) -> InvalidRequest:
        return InvalidRequest.of_field(field, f"model {self._label}: {text}", model=self._label)
