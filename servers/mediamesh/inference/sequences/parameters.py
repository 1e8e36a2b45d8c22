"""The parameters of a request that say which sequence it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.inference.scheduling import SequenceMark
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

__all__ = ["sequence_mark"]

_LONGEST_ID = 128  # as in Triton


def sequence_mark(parameters: Mapping[str, pb.InferParameter]) -> SequenceMark | None:
    """Return a request's place in a sequence; None where it names none.

    A negative number is taken as Triton does, as the unsigned one of the same bits.

    Raises:
        InvalidRequest: a parameter has the wrong type.
    """
    if "sequence_id" not in parameters:
        return None
    given = parameters["sequence_id"]
    key: int | str
    match given.WhichOneof("parameter_choice"):
        case "int64_param":
            key = given.int64_param % 2**64
        case "uint64_param":
            key = given.uint64_param
        case "string_param":
            key = given.string_param
        case kind:
            raise _wrong("sequence_id", f"is {kind or 'empty'}, expected int64_param, uint64_param or string_param")
    if isinstance(key, str) and len(key) > _LONGEST_ID:
        raise _wrong("sequence_id", f"has {len(key)} characters, at most {_LONGEST_ID} are taken")
    if not key:
        return None
    return SequenceMark(key, start=_flag(parameters, "sequence_start"), end=_flag(parameters, "sequence_end"))


def _flag(parameters: Mapping[str, pb.InferParameter], name: str) -> bool:
    if name not in parameters:
        return False
    if (kind := parameters[name].WhichOneof("parameter_choice")) != "bool_param":
        raise _wrong(name, f"is {kind or 'empty'}, expected bool_param")
    return parameters[name].bool_param


def _wrong(name: str, text: str) -> InvalidRequest:
    return InvalidRequest.of_field(f"parameters[{name}]", text)
