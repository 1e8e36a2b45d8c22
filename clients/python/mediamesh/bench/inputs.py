"""Requests for a model, made from what its server says about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.tensors import DTYPES

if TYPE_CHECKING:
    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

    Array = np.ndarray[Any, Any]

__all__ = ["inputs_of", "parse_shapes"]

_INTEGERS_BELOW = 100
_BYTES_LENGTH = 16


def parse_shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return shapes by the name of the input; each is given as ``NAME:1,3,224,224``.

    Raises:
        InvalidRequest: one is not spelled like that.
    """
    shapes = {}
    for text in given:
        name, colon, numbers = text.rpartition(":")
        try:
            shape = tuple(int(number) for number in numbers.split(",")) if numbers else ()
        except ValueError:
            shape = (-1,)
        if not colon or not name or any(size < 0 for size in shape):
            raise InvalidRequest.of_field("--shape", f"{text!r} is no shape; expected NAME:1,3,224,224")
        shapes[name] = shape
    return shapes


def inputs_of(
    metadata: pb.ModelMetadataResponse,
    *,
    batches: bool,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]],
    zero: bool = False,
    seed: int = 0,
) -> dict[str, Array]:
    """Return one tensor for every input of a model.

    Args:
        metadata: What the server says about the model.
        batches: The first dimension of every tensor is the batch.
        batch: Its size.
        shapes: Shapes in place of those in the metadata, by the name of the input.
        zero: Fill tensors with zeros; else with random numbers: standard normal ones, integers below 100, texts of 16
            letters.
        seed: Of the random numbers.

    Raises:
        InvalidRequest: a dimension is variable and was not given, an input is not the model's, or its type is unknown.
    """
    names = [tensor.name for tensor in metadata.inputs]
    if unknown := sorted(set(shapes).difference(names)):
        raise InvalidRequest.of_field("--shape", f"{metadata.name} has no input {unknown[0]!r}; it has {names}")
    random = np.random.default_rng(seed)
    return {
        tensor.name: _filled(tensor.datatype, _shape(metadata.name, tensor, shapes, batch if batches else None), random)
        if not zero
        else _zeros(tensor.datatype, _shape(metadata.name, tensor, shapes, batch if batches else None))
        for tensor in metadata.inputs
    }


def _shape(
    model: str,
    tensor: pb.ModelMetadataResponse.TensorMetadata,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int | None,
) -> tuple[int, ...]:
    if tensor.datatype not in DTYPES:
        raise InvalidRequest(f"Input {tensor.name!r} of {model} has the type {tensor.datatype!r}, which is unknown.")
    if tensor.name in shapes:
        return shapes[tensor.name]
    shape = list(tensor.shape)
    if batch is not None and shape and shape[0] < 0:
        shape[0] = batch
    if any(size < 0 for size in shape):
        example = ",".join(str(size) if size >= 0 else "8" for size in shape)
        raise InvalidRequest.of_field(
            "--shape",
            f"input {tensor.name!r} of {model} has variable dimensions, {list(tensor.shape)}: "
            f"say which, such as --shape {tensor.name}:{example}",
        )
    return tuple(shape)


def _zeros(datatype: str, shape: tuple[int, ...]) -> Array:
    return np.full(shape, b"", np.object_) if datatype == "BYTES" else np.zeros(shape, DTYPES[datatype])


def _filled(datatype: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(shape, np.object_)
        letters = random.integers(ord("a"), ord("z") + 1, (*shape, _BYTES_LENGTH), dtype=np.uint8)
        for index in np.ndindex(shape):
            array[index] = letters[index].tobytes()
        return array
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(dtype)
    if datatype == "BF16":  # bit patterns: the upper halves of FP32
        return (random.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, _INTEGERS_BELOW, shape).astype(dtype)
