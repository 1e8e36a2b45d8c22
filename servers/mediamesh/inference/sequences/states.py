"""``sequence_batching.state``: tensors that the server keeps between the requests of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError, file_beside
from mediamesh.inference.datatypes import TO_CONFIG
from mediamesh.wire.tensors import DTYPES, from_raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mediamesh.inference.datatypes import TensorSpec

    Array = np.ndarray[Any, Any]

__all__ = ["State", "read_states"]

# Where Triton looks for the files of initial states.
_DIRECTORY = "initial_state"
_LARGEST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class State:
    """One tensor that is kept for each sequence.

    Attributes:
        takes: The model's input for it.
        gives: The model's output with its next value.
        initial: Its value when a sequence starts; read-only.
    """

    takes: str
    gives: str
    initial: Array


def read_states(
    where: str,
    directory: Path,
    config: pb.ModelConfig,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> tuple[State, ...]:
    """Return the states of a configuration.

    Args:
        where: What errors name, file and field.
        directory: The model's directory, with the files of initial values in ``initial_state``.
        config: The configuration.
        inputs: The inputs of the ONNX file.
        outputs: Its outputs.

    Raises:
        LoadError: they are described wrongly, or are not what the model takes and gives.
    """
    given = config.sequence_batching.state
    for role, names in (
        ("input_name", [state.input_name for state in given]),
        ("output_name", [state.output_name for state in given]),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise LoadError(f"{where}: state: {role} {', '.join(twice)} is there twice.")
    batch = (1,) if config.max_batch_size else ()
    states = []
    for state in given:
        at = f"{where}: state {state.input_name!r}"
        for problem in _problems(state, config, inputs, outputs):
            raise LoadError(f"{at}: {problem}")
        initial = _initial(at, directory, state, batch)
        initial.flags.writeable = False
        states.append(State(state.input_name, state.output_name, initial))
    return tuple(states)


def _problems(
    state: pb.ModelSequenceBatching.State,
    config: pb.ModelConfig,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> Iterator[str]:
    for kind, name, specs in (("input", state.input_name, inputs), ("output", state.output_name, outputs)):
        spec = specs.get(name)
        if spec is None:
            yield f"the ONNX file has no {kind} {name!r}; it has {', '.join(specs) or 'none'}."
            return
        if TO_CONFIG[spec.datatype] != state.data_type:
            given = pb.DataType.Name(state.data_type)
            yield f"data_type: {given}, {kind} {name!r} of the ONNX file is {spec.datatype}."
        shape = (*((-1,) if config.max_batch_size else ()), *state.dims)
        if len(shape) != len(spec.shape) or any(
            size != own and min(size, own) >= 0 for size, own in zip(shape, spec.shape, strict=True)
        ):
            note = ", the first being the batch" if config.max_batch_size else ""
            yield f"dims: {list(state.dims)}, {kind} {name!r} of the ONNX file has {list(spec.shape)}{note}."
    if any(size < -1 for size in state.dims):
        yield f"dims: {list(state.dims)}, expected sizes of 0 or more, -1 for any."
    if state.input_name in {tensor.name for tensor in config.input}:
        yield "is listed under input too; the server feeds it, no caller does."
    if len(state.initial_state) > 1:
        yield f"initial_state: there are {len(state.initial_state)}, expected one at most."


def _initial(at: str, directory: Path, state: pb.ModelSequenceBatching.State, batch: tuple[int, ...]) -> Array:
    datatype = next(wire for wire, number in TO_CONFIG.items() if number == state.data_type)
    if not state.initial_state:
        # Triton leaves such a state as it is in memory, with a size of 1 where any is possible; we make it zero.
        return _zeros(at, datatype, (*batch, *(max(size, 1) if size < 0 else size for size in state.dims)))
    given = state.initial_state[0]
    at = f"{at}: initial_state {given.name!r}"
    _check_initial(at, state, given)
    shape = (*batch, *given.dims)
    if given.WhichOneof("state_data") == "zero_data":
        return _zeros(at, datatype, shape)
    return _from_file(at, directory, given.data_file, datatype, shape)


def _check_initial(
    at: str, state: pb.ModelSequenceBatching.State, given: pb.ModelSequenceBatching.InitialState
) -> None:
    if given.data_type != state.data_type:
        kinds = (pb.DataType.Name(kind) for kind in (given.data_type, state.data_type))
        raise LoadError(f"{at}: data_type: {next(kinds)}, the state is {next(kinds)}.")
    fits = len(given.dims) == len(state.dims) and all(
        size >= 0 and own in {-1, size} for size, own in zip(given.dims, state.dims, strict=True)
    )
    if not fits:
        raise LoadError(f"{at}: dims: {list(given.dims)}, the state has {list(state.dims)}; every size must be known.")
    if not given.name:
        raise LoadError(f"{at}: name: is empty; Triton wants one.")
    match given.WhichOneof("state_data"):
        case "zero_data" if given.zero_data:
            return
        case "data_file":
            return
        case _:
            raise LoadError(f"{at}: expected zero_data: true, or a data_file.")


def _zeros(at: str, datatype: str, shape: tuple[int, ...]) -> Array:
    _check_size(at, datatype, shape)
    dtype = DTYPES[datatype]
    return np.full(shape, "", dtype) if dtype.hasobject else np.zeros(shape, dtype)


def _from_file(at: str, directory: Path, name: str, datatype: str, shape: tuple[int, ...]) -> Array:
    path = directory / _DIRECTORY / file_beside(f"{at}: data_file", name)
    _check_size(at, datatype, shape)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise LoadError(f"{path}: has more than {_LARGEST_BYTES} bytes.")
        array = from_raw(datatype, shape, path.read_bytes())
        if not array.dtype.hasobject:
            return array.copy()
        texts = np.empty(array.size, DTYPES["BYTES"])
        texts[:] = [element.decode() for element in array.ravel()]
        return texts.reshape(shape)
    except (OSError, ValueError) as error:
        raise LoadError(f"{at}: data_file: {path}: {error}") from error


def _check_size(at: str, datatype: str, shape: Sequence[int]) -> None:
    if math.prod(shape) * DTYPES[datatype].itemsize > _LARGEST_BYTES:
        raise LoadError(f"{at}: dims: {list(shape)} make more than {_LARGEST_BYTES} bytes.")
