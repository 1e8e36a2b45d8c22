"""``sequence_batching.control_input``: what a model is told about the sequence of each request."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.datatypes import TO_CONFIG
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.scheduling import SequenceMark

    Array = np.ndarray[Any, Any]

__all__ = ["Controls", "read_controls"]

_Control = pb.ModelSequenceBatching.Control
_KINDS: Mapping[int, str] = MappingProxyType(
    {number: name.removeprefix("CONTROL_SEQUENCE_") for name, number in _Control.Kind.items()}
)
_VALUES = MappingProxyType({"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"})
_ID_TYPES = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


@dataclass(frozen=True, slots=True)
class _Signal:
    """An input that is one of two tensors."""

    name: str
    false: Array
    true: Array


@dataclass(frozen=True, slots=True)
class _Identifier:
    """An input that gets the identifier of the sequence."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Controls:
    """The inputs of a model that carry signals.

    Args:
        label: What errors call the model.
        signals: By kind: START, READY or END.
        identifier: The input for the sequence's identifier, where there is one.

    Attributes:
        names: All of the inputs.
    """

    def __init__(self, label: str, signals: Mapping[str, _Signal], identifier: _Identifier | None) -> None:
        self._label = label
        self._start, self._end = signals.get("START"), signals.get("END")
        ready = signals.get("READY")
        # A batch holds nothing but requests: slots without one are left out.
        self._always = {ready.name: ready.true} if ready is not None else {}
        self._identifier = identifier
        self.names = {signal.name for signal in signals.values()} | ({identifier.name} if identifier else set())

    def check(self, key: int | str) -> None:
        """Check that the model can be told this identifier.

        Raises:
            InvalidRequest: it has another type.
        """
        self._key(key)

    def feeds(self, mark: SequenceMark) -> dict[str, Array]:
        """Return the tensors for one request."""
        feeds = dict(self._always)
        if (start := self._start) is not None:
            feeds[start.name] = start.true if mark.start else start.false
        if (end := self._end) is not None:
            feeds[end.name] = end.true if mark.end else end.false
        if (key := self._key(mark.key)) is not None and self._identifier is not None:
            feeds[self._identifier.name] = key
        return feeds

    def _key(self, key: int | str) -> Array | None:
        wanted = self._identifier
        if wanted is None:
            return None
        if isinstance(key, str) is not (wanted.datatype == "BYTES"):
            kind = "a text" if wanted.datatype == "BYTES" else "a number"
            raise self._invalid(f"is {key!r}, the model takes {kind}")
        try:
            return np.full(wanted.shape, key, DTYPES[wanted.datatype])
        except OverflowError:
            raise self._invalid(f"is {key}, which does not fit {wanted.datatype}") from None

    def _invalid(self, text: str) -> InvalidRequest:
        return InvalidRequest.of_field("parameters[sequence_id]", f"model {self._label}: {text}", model=self._label)


def read_controls(where: str, label: str, config: pb.ModelConfig, inputs: Mapping[str, TensorSpec]) -> Controls:
    """Return the control inputs of a configuration.

    Args:
        where: What errors name, file and field.
        label: What errors call the model.
        config: The configuration.
        inputs: The inputs of the ONNX file.

    Raises:
        LoadError: they are described wrongly, or are not what the model takes.
    """
    # As in Triton: one element for each request.
    shape = (1, 1) if config.max_batch_size else (1,)
    signals: dict[str, _Signal] = {}
    identifier: _Identifier | None = None
    for given in config.sequence_batching.control_input:
        at = f"{where}: control_input {given.name!r}"
        if len(given.control) != 1:
            raise LoadError(f"{at}: has {len(given.control)} controls, expected one.")
        control, spec = given.control[0], inputs.get(given.name)
        kind = _KINDS[control.kind]
        if spec is None:
            raise LoadError(f"{at}: the ONNX file has no such input; it has {', '.join(inputs) or 'none'}.")
        if kind in signals or (kind == "CORRID" and identifier is not None):
            raise LoadError(f"{at}: CONTROL_SEQUENCE_{kind} is given to another input already.")
        if kind == "CORRID":
            identifier = _Identifier(given.name, _id_type(at, control), shape)
            datatype = identifier.datatype
        else:
            signals[kind] = _signal(at, given.name, control, shape)
            datatype = next(wire for name, wire in _VALUES.items() if getattr(control, name))
        if spec.datatype != datatype or not spec.admits(shape):
            raise LoadError(f"{at}: gives {datatype} {list(shape)}, the ONNX file takes {spec}.")
    return Controls(label, signals, identifier)


def _signal(at: str, name: str, control: pb.ModelSequenceBatching.Control, shape: tuple[int, ...]) -> _Signal:
    given = [field for field in _VALUES if getattr(control, field)]
    if len(given) != 1:
        raise LoadError(f"{at}: expected one of {', '.join(_VALUES)}, has {', '.join(given) or 'none'}.")
    values, field = list(getattr(control, given[0])), given[0]
    if len(values) != 2:
        raise LoadError(f"{at}: {field}: has {len(values)} values, expected two.")
    if control.data_type:
        raise LoadError(f"{at}: data_type: is for CONTROL_SEQUENCE_CORRID; {field} says the type.")
    dtype = DTYPES[_VALUES[field]]
    return _Signal(name, np.full(shape, values[0], dtype), np.full(shape, values[1], dtype))


def _id_type(at: str, control: pb.ModelSequenceBatching.Control) -> str:
    if any(getattr(control, field) for field in _VALUES):
        raise LoadError(f"{at}: CONTROL_SEQUENCE_CORRID has a data_type, no values for false and true.")
    for wire in _ID_TYPES:
        if TO_CONFIG[wire] == control.data_type:
            return wire
    known = ", ".join(pb.DataType.Name(TO_CONFIG[wire]) for wire in _ID_TYPES)
    raise LoadError(f"{at}: data_type: {pb.DataType.Name(control.data_type)}, expected one of {known}.")
