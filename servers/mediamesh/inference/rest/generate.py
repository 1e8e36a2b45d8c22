"""Triton's generate extension: one flat JSON object in, whose keys are inputs or parameters; flat objects out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.datatypes import MOST_TEXTS
from mediamesh.inference.rest.elements import excerpt, raw_of
from mediamesh.inference.rest.requests import set_parameter
from mediamesh.kit.boundary import checked
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.infer_request import InferRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.inference.datatypes import TensorSpec

__all__ = ["generate_request"]


def generate_request(
    name: str,
    version: str,
    given: Mapping[str, Any],
    inputs: Mapping[str, TensorSpec],
    *,
    most_texts: int = MOST_TEXTS,
) -> InferRequest:
    """Return the request of a flat object.

    Args:
        name: The model.
        version: Its version; may be empty.
        given: The object: ``id``, inputs by name, and parameters, bare or in an object ``parameters``.
        inputs: What the model takes.
        most_texts: Most elements of an input of BYTES.

    Raises:
        InvalidRequest: a value is none that its input or a parameter can hold; names it.
    """
    where = f"model {name}"
    message = pb.ModelInferRequest(model_name=name, model_version=version)
    raw: list[bytes | memoryview] = []
    for key, value in given.items():
        if spec := inputs.get(key):
            raw.append(_add(message, spec, value, where, most_texts))
        elif key == "id" and isinstance(value, str) and value.isprintable():
            message.id = value
        elif key == "parameters" and isinstance(value, dict):
            for inner, parameter in value.items():
                set_parameter(message.parameters, inner, parameter, where)
        else:
            set_parameter(message.parameters, key, value, where)
    checked(message)
    return InferRequest(message, raw)


def _add(
    message: pb.ModelInferRequest, spec: TensorSpec, value: Any, where: str, most_texts: int
) -> bytes | memoryview:
    """Add an input; a bare value is a tensor of one element, a list fills the last dimensions."""
    data = value if isinstance(value, list) else [value]
    shape = _sizes(data)
    try:
        # One number for a model that takes pictures is refused by the model's own shape, later.
        shape = [1] * (len(spec.shape) - len(shape)) + shape
        flat = data if len(shape) == len(_sizes(data)) else _flattened(data)
        raw = raw_of(spec.datatype, shape, flat, most_texts)
    except ValueError as error:
        raise InvalidRequest.of_field(
            spec.name, f"{where}: input {spec.name!r} ({spec}) {error}; given is {excerpt(value)}"
        ) from None
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    return raw


def _sizes(data: list[Any]) -> list[int]:
    """Return the sizes of nested lists, as their first elements say them."""
    sizes: list[int] = []
    level: Any = data
    while isinstance(level, list) and len(sizes) <= 16:
        sizes.append(len(level))
        level = level[0] if level else None
    return sizes


def _flattened(data: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for element in data:
        flat.extend(_flattened(element) if isinstance(element, list) else [element])
    return flat
