"""What comes in on the pins, as results with times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, struct_pb2

from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Result", "images", "result_of"]

# Chunks that tell about a stream and are no results of it.
_SILENT = frozenset({"meta", "progress", "agent_status", "media_progress", "done", "final"})


@dataclass(frozen=True, slots=True)
class Result:
    """One result of an input.

    Attributes:
        time: The media time that it is about, in seconds; of a transcript the end of what it has heard.
        data: The result as its agent gave it.
        partial: Whether a later one takes its place.
        watermark: Media time before which its input gives nothing more.
    """

    time: float
    data: struct_pb2.Struct
    partial: bool
    watermark: float


def result_of(pin: str, chunk: Chunk) -> Result | None:
    """Return the result in a chunk; None where the chunk only tells about its stream.

    Raises:
        InvalidRequest: it is neither; the field is the pin, and the text says what was wanted.
        MeshError: the chunk says that its producer failed.
    """
    kind = chunk.WhichOneof("payload")
    if kind in _SILENT:
        return None
    if kind == "error":
        raise MeshError.from_status(chunk.error)
    if kind != "snapshot" or not chunk.snapshot.data.HasField("struct_value"):
        raise _unfit(pin, chunk, f"is no snapshot of an object but {kind}")
    data = chunk.snapshot.data.struct_value
    transcript = _field(data, "type").string_value == "transcript"
    name = "end" if transcript else "time"
    time = _number(data, name)
    if time is None:
        raise _unfit(pin, chunk, f"has no {name} in seconds of media time")
    partial = transcript and not _field(data, "final").bool_value
    return Result(time, data, partial, _settled(data, time) if partial else time)


def images(given: Any) -> list[struct_pb2.Struct]:
    """Return what an image gave as results at time 0: a classification, a result, or a list of either.

    Raises:
        InvalidRequest: it is none of these.
    """
    if isinstance(given, list) and given and all(_is_class(entry) for entry in given):
        return [_image({"classification": given})]
    found: list[struct_pb2.Struct] = []
    for entry in given if isinstance(given, list) else [given]:
        if isinstance(entry, dict):
            found.append(_image(entry))
        elif isinstance(entry, list) and all(_is_class(label) for label in entry):
            found.append(_image({"classification": entry}))
        else:
            raise InvalidRequest.of_field("inputs.image_results", "must be a classification, or results of images")
    return found


def _image(content: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict({"type": "image", "time": 0, **content}, struct_pb2.Struct())


def _is_class(entry: object) -> bool:
    return isinstance(entry, dict) and "label" in entry


def _settled(transcript: struct_pb2.Struct, heard: float) -> float:
    """Return the time before which a partial transcript ends nowhere: its last word may still be revised."""
    words = _field(transcript, "words").list_value.values
    if words and words[-1].HasField("struct_value"):
        start = _number(words[-1].struct_value, "start")
    else:
        start = _number(transcript, "start")
    return -math.inf if start is None else min(start, heard)


def _number(data: struct_pb2.Struct, name: str) -> float | None:
    field = _field(data, name)
    value = field.number_value
    return value if field.HasField("number_value") and math.isfinite(value) and value >= 0 else None


def _field(data: struct_pb2.Struct, name: str) -> struct_pb2.Value:
    # Reading a key that the map of a message lacks would add it.
    return data.fields[name] if name in data.fields else struct_pb2.Value()


def _unfit(pin: str, chunk: Chunk, text: str) -> InvalidRequest:
    return InvalidRequest.of_field(f"inputs.{pin}", f"chunk {chunk.sequence_number} {text}")
