"""Values against the pins that they enter or leave."""

from __future__ import annotations

import json
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import json_format, struct_pb2

from mediamesh.api.agent.v1.pin_pb2 import Pin, PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, UnsupportedMediaType
from mediamesh.wire.json import short_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mediamesh.api.agent.v1.pin_pb2 import PinConstraints
    from mediamesh.api.media.v1.media_pb2 import MediaFacts

__all__ = ["MEDIA_TYPES", "Violation", "check_value", "from_value", "to_value", "type_name"]

MEDIA_TYPES = {
    PinType.PIN_TYPE_IMAGE: MediaType.MEDIA_TYPE_IMAGE,
    PinType.PIN_TYPE_AUDIO: MediaType.MEDIA_TYPE_AUDIO,
    PinType.PIN_TYPE_VIDEO: MediaType.MEDIA_TYPE_VIDEO,
    PinType.PIN_TYPE_DOCUMENT: MediaType.MEDIA_TYPE_DOCUMENT,
}
_KINDS = {
    PinType.PIN_TYPE_STRING: "text",
    PinType.PIN_TYPE_NUMBER: "number",
    PinType.PIN_TYPE_BOOLEAN: "boolean",
    PinType.PIN_TYPE_JSON: "json",
    PinType.PIN_TYPE_BINARY: "binary",
    PinType.PIN_TYPE_STREAM: "stream",
    **dict.fromkeys(MEDIA_TYPES, "media"),
}
_WORDS = {str: "string", float: "number", int: "number", bool: "boolean", bytes: "binary", dict: "json", list: "json"}
# Facts that a constraint fixes: the fact's field, and its name and unit in a sentence.
_FIXED = (
    ("encoding", "encoding", ""),
    ("sample_rate_hz", "sampleRate", " Hz"),
    ("channels", "channels", ""),
    ("width", "width", " px"),
    ("height", "height", " px"),
    ("fps", "fps", " frames/s"),
)


class Violation(NamedTuple):
    """What is wrong with a value, and the class of error that says so."""

    kind: type[InvalidRequest]
    text: str


def type_name(pin: Pin) -> str:
    """Return the pin's type as manifests write it."""
    return short_name(PinType.DESCRIPTOR, PinType.Name(pin.type))


def check_value(pin: Pin, value: Value) -> Iterator[Violation]:
    """Yield what makes the value unfit for the pin; media of every type fits a binary one."""
    kind = value.WhichOneof("kind")
    is_media_as_bytes = kind == "media" and pin.type == PinType.PIN_TYPE_BINARY
    if kind != _KINDS[pin.type] and not is_media_as_bytes:
        yield Violation(InvalidRequest, f"takes {type_name(pin)}, got {kind or 'nothing'}")
    elif kind == "media":
        yield from _check_media(pin, value.media)
    elif kind == "json":
        yield from _check_json(value.json)
    else:
        yield from _check_scalar(pin.constraints, value)


def from_value(value: Value) -> Any:
    """Return the value as Python's: str, float, bool, bytes, what JSON gives, or a MediaValue."""
    kind = value.WhichOneof("kind")
    if kind == "json":
        return json_format.MessageToDict(value.json)
    return getattr(value, kind or "text")


def to_value(pin: Pin, given: object) -> Value:
    """Return what Python calls it as a value of the pin's type.

    Raises:
        TypeError: it is of another type; the text says which is wanted.
    """
    value: Value | None = None
    match _KINDS[pin.type], given:
        case _, Value():
            value = given
        case "json", _:
            value = Value(json=_json(given))
        case "text", str():
            value = Value(text=given)
        case "boolean", bool():
            value = Value(boolean=given)
        case "number", Real() if not isinstance(given, bool):
            value = Value(number=float(given))
        case "binary", bytes() | bytearray() | memoryview():
            value = Value(binary=bytes(given))
        case "media", MediaValue():
            value = Value(media=given)
    if value is None:
        got = _WORDS.get(type(given), type(given).__name__)
        raise TypeError(f"takes {type_name(pin)}, got {got}")
    return value


def _json(given: object) -> struct_pb2.Value:
    try:
        return json_format.Parse(json.dumps(given, allow_nan=False), struct_pb2.Value())
    except (TypeError, ValueError, RecursionError, json_format.ParseError) as error:
        raise TypeError(f"takes json, got something that JSON has not: {error}") from None


def _check_json(value: struct_pb2.Value) -> Iterator[Violation]:
    try:
        json_format.MessageToDict(value)
    except ValueError:
        yield Violation(InvalidRequest, "has a number that JSON has not: infinity or NaN")


def _check_scalar(limits: PinConstraints, value: Value) -> Iterator[Violation]:
    if value.HasField("number"):
        if limits.HasField("minimum") and not value.number >= limits.minimum:
            yield Violation(InvalidRequest, f"must be at least {limits.minimum:g}, is {value.number:g}")
        if limits.HasField("maximum") and not value.number <= limits.maximum:
            yield Violation(InvalidRequest, f"must be at most {limits.maximum:g}, is {value.number:g}")
    if value.HasField("text") and limits.enum_values and value.text not in limits.enum_values:
        yield Violation(InvalidRequest, f"must be one of {', '.join(limits.enum_values)}; is {value.text[:64]!r}")
    size = len(value.text.encode()) if value.HasField("text") else len(value.binary)
    if limits.max_size_bytes and size > limits.max_size_bytes:
        yield Violation(InvalidRequest, f"must be at most {limits.max_size_bytes} bytes, is {size}")


def _check_media(pin: Pin, media: MediaValue) -> Iterator[Violation]:
    if media.type != MEDIA_TYPES.get(pin.type, media.type):
        got = short_name(MediaType.DESCRIPTOR, MediaType.Name(media.type))
        yield Violation(InvalidRequest, f"takes {type_name(pin)}, got {got}")
        return
    source = media.WhichOneof("source")
    if source == "url":
        yield Violation(InvalidRequest, "must be a reference into the media store or inline, is an address elsewhere")
        return
    size = media.ref.size_bytes if source == "ref" else len(media.inline)
    if (most := pin.constraints.max_size_bytes) and size > most:
        yield Violation(MediaTooLarge, f"must be at most {most} bytes, is {size}")
    if source == "ref":  # what is inline has no facts yet: whoever decodes it finds out
        yield from _check_facts(pin.constraints, media.ref.metadata)


def _check_facts(limits: PinConstraints, facts: MediaFacts) -> Iterator[Violation]:
    if limits.mime_types and not any(_accepts(pattern, facts.mime_type) for pattern in limits.mime_types):
        accepted = ", ".join(limits.mime_types)
        yield Violation(UnsupportedMediaType, f"mimeType must be {accepted}; is {facts.mime_type or 'unknown'}")
    for field, name, unit in _FIXED:
        wanted, found = getattr(limits, field), getattr(facts, field)
        if wanted and found != wanted:
            yield Violation(InvalidRequest, f"{name} must be {wanted}{unit}, is {found or 'unknown'}")
    if (most := limits.max_duration_seconds) and facts.duration_seconds > most:
        yield Violation(MediaTooLarge, f"must last at most {most:g} s, lasts {facts.duration_seconds:g} s")


def _accepts(pattern: str, mime_type: str) -> bool:
    if pattern.endswith("/*"):
        return mime_type.startswith(pattern[:-1])
    return mime_type == pattern
