"""Requests held against what a model takes, and its outputs packed as it was asked."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.datatypes import MOST_TEXTS, check_texts
from mediamesh.inference.protocol.classification import best_classes
from mediamesh.inference.protocol.shared_memory import Room
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.tensors import DTYPES, from_contents, from_raw, to_bytes, to_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.protocol.shared_memory import SharedMemory
    from mediamesh.wire.infer_request import InferRequest

    Array = np.ndarray[Any, Any]
    Tensor = pb.ModelInferRequest.InferInputTensor
    Requested = pb.ModelInferRequest.InferRequestedOutputTensor

__all__ = ["Bound", "Signature"]

_SHARED_MEMORY, _CLASSIFICATION = "shared_memory_region", "classification"
# How an output is wanted where not as raw contents: written into shared memory, or as so many best classes.
Form: TypeAlias = Room | int
_RAW: Mapping[str, Form] = MappingProxyType({})


# The elements of these types are looked at, each time.
_LOOKED_THROUGH = frozenset({"BYTES", "BOOL"})
_MOST_KNOWN = 256


class _Known(NamedTuple):
    """A tensor of a shape that fits: its type in numpy, its bytes, and its size in the batch dimension."""

    dtype: np.dtype[Any]
    size: int
    items: int


class Bound(NamedTuple):
    """A request's tensors, checked.

    Attributes:
        inputs: Tensors by name.
        outputs: Names of the wanted outputs.
        items: Size of the batch dimension; 1 for a model that has none.
        forms: Outputs that are not wanted as raw contents.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    items: int
    forms: Mapping[str, Form] = _RAW


class Signature:
    """What a model takes and gives.

    Args:
        label: What errors call the model.
        inputs: Its inputs, all of which a request must hold but the optional ones.
        outputs: Its outputs.
        max_batch_size: Largest size of the batch dimension; 0 when there is none.
        optional: Names of the inputs that a request may leave out.
        labels: Names of the classes by output, for the classification extension.
        most_texts: Most elements of an input of BYTES.
    """

    def __init__(
        self,
        label: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        max_batch_size: int,
        *,
        optional: Iterable[str] = (),
        labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
        most_texts: int = MOST_TEXTS,
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = {spec.name: spec for spec in outputs}
        self._label = label
        self._all_outputs = tuple(self.outputs)
        self._max_batch_size = max_batch_size
        self._required = frozenset(self.inputs).difference(optional)
        self._labels = labels
        self._most_texts = most_texts
        self._known: dict[tuple[str, str, tuple[int, ...]], _Known] = {}
        self._described: dict[tuple[str, tuple[int, ...]], pb.ModelInferResponse.InferOutputTensor] = {}

    def bind(self, request: InferRequest, memory: SharedMemory | None = None) -> Bound:
        """Check a request and return its tensors: views of its bytes where they are raw, of memory where it is shared.

        Raises:
            InvalidRequest: it does not fit the model; names field, tensor, and what was expected and given.
        """
        message, raw = request
        if (known := self._bind_known(message, raw)) is not None:
            return known
        inputs: dict[str, Array] = {}
        contents = iter(enumerate(raw))
        for index, tensor in enumerate(message.inputs):
            if tensor.name in inputs:
                raise self._invalid(f"inputs[{index}].name", f"input {tensor.name!r} is there twice")
            spec, shape = self._fitting(index, tensor)
            if tensor.parameters and _SHARED_MEMORY in tensor.parameters:
                inputs[spec.name] = self._from_memory(index, tensor, spec, shape, memory)
            elif raw:
                if tensor.HasField("contents"):
                    raise self._invalid(f"inputs[{index}].contents", f"input {spec.name!r} has raw contents too")
                number, content = next(contents, (len(raw), None))
                if content is None:
                    raise self._invalid(
                        "raw_input_contents",
                        f"has {number} entries, none for input {spec.name!r}; expected one for each input that is not "
                        "in shared memory",
                    )
                inputs[spec.name] = self._decoded(f"raw_input_contents[{number}]", spec, shape, content)
            else:
                inputs[spec.name] = self._from_contents(index, tensor, spec, shape)
        if left := len(list(contents)):
            raise self._invalid(
                "raw_input_contents",
                f"has {len(raw)} entries, expected {len(raw) - left}: one for each input that is not in shared memory",
            )
        if not self._required <= inputs.keys():
            missing = [
                f"{name!r} ({spec})" for name, spec in self.inputs.items() if name in self._required - set(inputs)
            ]
            raise self._invalid("inputs", f"lacks input {', '.join(missing)}")
        outputs, forms = self._wanted(message.outputs, memory)
        bound = Bound(inputs, outputs, self._items(inputs), forms)
        self._remember(inputs)
        return bound

    def _bind_known(self, message: pb.ModelInferRequest, raw: Sequence[bytes | memoryview]) -> Bound | None:
        """Bind a request of raw tensors whose shapes were found to fit before, in a third of the time.

        Whatever is unusual is left to the long way, which says what is wrong.
        """
        tensors = message.inputs
        if len(tensors) != len(raw) or len(tensors) != len(self.inputs) or message.outputs:
            return None
        inputs: dict[str, Array] = {}
        items = 0
        for tensor, content in zip(tensors, raw, strict=True):
            name, shape = tensor.name, tuple(tensor.shape)
            known = self._known.get((name, tensor.datatype, shape))
            if known is None or known.size != len(content) or tensor.parameters or tensor.HasField("contents"):
                return None
            if inputs and (name in inputs or items != known.items):
                return None
            items = known.items
            inputs[name] = np.frombuffer(content, known.dtype).reshape(shape)
        return Bound(inputs, self._all_outputs, items)

    def _remember(self, inputs: Mapping[str, Array]) -> None:
        """Note the shapes of tensors that fit; a model of open shapes forgets them all now and then."""
        for name, array in inputs.items():
            datatype = self.inputs[name].datatype
            if datatype not in _LOOKED_THROUGH:
                items = array.shape[0] if self._max_batch_size else 1
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[name, datatype, array.shape] = _Known(array.dtype, array.nbytes, items)

    def response(
        self, request: pb.ModelInferRequest, version: str, bound: Bound, arrays: Sequence[Array]
    ) -> pb.ModelInferResponse:
        """Pack the outputs of a run, and write those into shared memory that are wanted there.

        Raises:
            InvalidRequest: an output does not fit its shared memory, or cannot be classified.
        """
        if not bound.forms:
            return pb.ModelInferResponse(
                model_name=request.model_name,
                model_version=version,
                id=request.id,
                outputs=map(self._output, bound.outputs, arrays),
                raw_output_contents=[to_bytes(array) for array in arrays],
            )
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
        for name, array in zip(bound.outputs, arrays, strict=True):
            if name in bound.forms:
                self._pack(response, name, array, bound.forms[name])
            else:
                response.outputs.add(name=name, datatype=self.outputs[name].datatype, shape=array.shape)
                response.raw_output_contents.append(to_bytes(array))
        return response

    def _output(self, name: str, array: Array) -> pb.ModelInferResponse.InferOutputTensor:
        """Return the description of an output; those of the last shapes are kept, as making one takes microseconds."""
        key = (name, array.shape)
        output = self._described.get(key)
        if output is None:
            if len(self._described) >= _MOST_KNOWN:
                self._described.clear()
            output = self._described[key] = pb.ModelInferResponse.InferOutputTensor(
                name=name, datatype=self.outputs[name].datatype, shape=array.shape
            )
        return output

    def _pack(self, response: pb.ModelInferResponse, name: str, array: Array, form: Form) -> None:
        try:
            if isinstance(form, Room):
                output = response.outputs.add(name=name, datatype=self.outputs[name].datatype, shape=array.shape)
                form.write(to_raw(array), output.parameters)
                # As in Triton: clients count the entries up to their output's.
                response.raw_output_contents.append(b"")
                return
            classes = best_classes(
                array,
                self.outputs[name].datatype,
                form,
                self._labels.get(name, ()),
                batched=self._max_batch_size > 0,
            )
        except ValueError as error:
            raise self._invalid("outputs", f"output {name!r} {error}") from None
        response.outputs.add(name=name, datatype="BYTES", shape=classes.shape)
        response.raw_output_contents.append(to_bytes(classes))

    def _fitting(self, index: int, tensor: Tensor) -> tuple[TensorSpec, tuple[int, ...]]:
        """Return the input that a tensor is for, and its shape, which fits."""
        spec = self.inputs.get(tensor.name)
        if spec is None:
            known = ", ".join(f"{name!r}" for name in self.inputs)
            raise self._invalid(f"inputs[{index}].name", f"has no input {tensor.name!r}; it takes {known}")
        if tensor.datatype != spec.datatype:
            raise self._invalid(
                f"inputs[{index}].datatype", f"input {spec.name!r} is {tensor.datatype!r}, expected {spec.datatype}"
            )
        shape = tuple(tensor.shape)
        if not spec.admits(shape) or min(shape, default=0) < 0:
            raise self._invalid(
                f"inputs[{index}].shape", f"input {spec.name!r} has shape {list(shape)}, expected {list(spec.shape)}"
            )
        try:
            check_texts(spec.datatype, shape, self._most_texts)
        except ValueError as error:
            raise self._invalid(f"inputs[{index}].shape", f"input {spec.name!r} {error}") from None
        return spec, shape

    def _from_contents(self, index: int, tensor: Tensor, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        field = f"inputs[{index}].contents"
        try:
            array = from_contents(spec.datatype, shape, tensor.contents)
        except ValueError as error:
            raise self._invalid(field, f"input {spec.name!r} ({spec.datatype} {list(shape)}) {error}") from None
        return self._texts(field, array) if array.dtype.hasobject else array

    def _from_memory(
        self, index: int, tensor: Tensor, spec: TensorSpec, shape: tuple[int, ...], memory: SharedMemory | None
    ) -> Array:
        field = f"inputs[{index}].parameters"
        if tensor.HasField("contents"):
            raise self._invalid(f"inputs[{index}].contents", f"input {spec.name!r} is in shared memory too")
        if memory is None:
            raise self._invalid(field, f"input {spec.name!r}: there is no shared memory here")
        try:
            content = memory.content(tensor.parameters)
        except ValueError as error:
            raise self._invalid(field, f"input {spec.name!r} {error}") from None
        return self._decoded(field, spec, shape, content)

    def _decoded(self, field: str, spec: TensorSpec, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
        try:
            array = from_raw(spec.datatype, shape, raw)
        except ValueError as error:
            raise self._invalid(field, f"input {spec.name!r} ({spec.datatype} {list(shape)}) {error}") from None
        return self._texts(field, array) if array.dtype.hasobject else array

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

    def _wanted(
        self, requested: Sequence[Requested], memory: SharedMemory | None
    ) -> tuple[tuple[str, ...], Mapping[str, Form]]:
        if not requested:
            return self._all_outputs, _RAW
        forms: dict[str, Form] = {}
        for index, output in enumerate(requested):
            if output.name not in self.outputs:
                known = ", ".join(f"{name!r}" for name in self.outputs)
                raise self._invalid(f"outputs[{index}].name", f"has no output {output.name!r}; it gives {known}")
            if output.parameters and (form := self._form(index, output, memory)) is not None:
                forms[output.name] = form
        return tuple(dict.fromkeys(output.name for output in requested)), forms or _RAW

    def _form(self, index: int, output: Requested, memory: SharedMemory | None) -> Form | None:
        field, parameters = f"outputs[{index}].parameters", output.parameters
        # 0 asks for no classification.
        given = parameters.get(_CLASSIFICATION)
        classes = (given.int64_param or given.uint64_param) if given is not None else 0
        if given is not None and (
            classes < 0 or given.WhichOneof("parameter_choice") not in {"int64_param", "uint64_param"}
        ):
            raise self._invalid(field, f"output {output.name!r}: {_CLASSIFICATION} needs a number of classes")
        if _SHARED_MEMORY not in parameters:
            return classes or None
        if classes:
            raise self._invalid(field, f"output {output.name!r}: classes cannot be written into shared memory")
        if memory is None:
            raise self._invalid(field, f"output {output.name!r}: there is no shared memory here")
        try:
            return memory.room(parameters)
        except ValueError as error:
            raise self._invalid(field, f"output {output.name!r} {error}") from None

    def _invalid(self, field: str, text: str) -> InvalidRequest:
        return InvalidRequest.of_field(field, f"model {self._label}: {text}", model=self._label)
