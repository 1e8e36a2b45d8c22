"""Which value fits which pin: the rules of ``PinConstraints``, and the sentences that say so.

Every sentence goes on from the name of a pin or a field: "takes image, got audio", "must be at most 10 bytes, is 12".
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import json_format

from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, UnsupportedMediaType
from mediamesh.wire.json import short_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from google.protobuf import struct_pb2

    from mediamesh.api.agent.v1.pin_pb2 import Pin, PinConstraints
    from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaValue

__all__ = ["MEDIA_TYPES", "Violation", "accepts", "check_fixed", "check_value", "listed", "plain_value", "type_name"]

# The kind of media on each pin that carries media.
MEDIA_TYPES: Mapping[PinType.ValueType, MediaType.ValueType] = {
    PinType.PIN_TYPE_IMAGE: MediaType.MEDIA_TYPE_IMAGE,
    PinType.PIN_TYPE_AUDIO: MediaType.MEDIA_TYPE_AUDIO,
    PinType.PIN_TYPE_VIDEO: MediaType.MEDIA_TYPE_VIDEO,
    PinType.PIN_TYPE_DOCUMENT: MediaType.MEDIA_TYPE_DOCUMENT,
}
_PLAIN = {
    "text": PinType.PIN_TYPE_STRING,
    "number": PinType.PIN_TYPE_NUMBER,
    "boolean": PinType.PIN_TYPE_BOOLEAN,
    "json": PinType.PIN_TYPE_JSON,
    "binary": PinType.PIN_TYPE_BINARY,
    "stream": PinType.PIN_TYPE_STREAM,
}
# Facts that a constraint fixes: the field, and its name and unit in a sentence.
_FIXED = (
    ("encoding", "encoding", ""),
    ("sample_rate_hz", "sampleRate", " Hz"),
    ("channels", "channels", ""),
    ("width", "width", " px"),
    ("height", "height", " px"),
    ("fps", "fps", " frames/s"),
)
# Facts that media of a kind must have to be of use: the field, and its name in a sentence.
_NEEDED: Mapping[PinType.ValueType, Sequence[tuple[str, str]]] = {
    PinType.PIN_TYPE_AUDIO: (("mime_type", "mimeType"), ("sample_rate_hz", "sampleRate")),
    PinType.PIN_TYPE_IMAGE: (("mime_type", "mimeType"), ("width", "width"), ("height", "height")),
    PinType.PIN_TYPE_VIDEO: (("mime_type", "mimeType"), ("width", "width"), ("height", "height"), ("fps", "fps")),
    PinType.PIN_TYPE_DOCUMENT: (("mime_type", "mimeType"), ("pages", "pages")),
}
_FPS_AGREE = 0.0005
_LISTED = 16


class Violation(NamedTuple):
    """What is wrong with a value, and the class of error that says so."""

    kind: type[InvalidRequest]
    text: str


def type_name(kind: PinType.ValueType) -> str:
    """Return a pin's type as manifests and flows write it."""
    return short_name(PinType.DESCRIPTOR, PinType.Name(kind))


def listed(names: Collection[str]) -> str:
    """Return names in a row, the first 16 of them."""
    return ", ".join([*islice(names, _LISTED), *(["…"] if len(names) > _LISTED else [])])


def accepts(pattern: str, mime_type: str) -> bool:
    """Return whether a media type, or every one of a narrower pattern, is of a pattern such as ``image/*``."""
    return bool(mime_type) and fnmatchcase(mime_type, pattern)


def plain_value(pin: Pin, given: struct_pb2.Value) -> Value:
    """Return JSON that stands in a flow, a manifest or a request as the value that it is for the pin.

    It is JSON on a JSON pin; elsewhere text, a number or a boolean is what it is, and null is nothing.
    """
    if pin.type == PinType.PIN_TYPE_JSON:
        return Value(json=given)
    match given.WhichOneof("kind"):
        case "string_value":
            return Value(text=given.string_value)
        case "number_value":
            return Value(number=given.number_value)
        case "bool_value":
            return Value(boolean=given.bool_value)
        case "struct_value" | "list_value":
            return Value(json=given)
    return Value()


def check_value(pin: Pin, value: Value) -> Iterator[Violation]:
    """Yield what makes the value unfit for the pin; media of every kind fits a binary one.

    A reference must show every fact that the pin restricts, and those that media of its kind cannot be used without.
    Media that is inline has no facts yet, and one that is an address elsewhere not even a size: who decodes or fetches
    it finds out.
    """
    kind = value.WhichOneof("kind")
    if kind == "media" and pin.type in {*MEDIA_TYPES, PinType.PIN_TYPE_BINARY}:
        yield from _check_media(pin, value.media)
    elif kind is None or _PLAIN.get(kind) != pin.type:
        error = UnsupportedMediaType if pin.type in MEDIA_TYPES else InvalidRequest
        yield Violation(error, f"takes {type_name(pin.type)}, got {_called(value)}")
    elif kind == "json":
        yield from _check_json(value.json)
    else:
        yield from _check_plain(pin.constraints, value)


def check_fixed(
    limits: PinConstraints, found: MediaFacts | PinConstraints, *, unknown_fits: bool = False
) -> Iterator[Violation]:
    """Yield which of the facts that the limits fix are others.

    Args:
        limits: What a pin takes.
        found: What media has, or what another pin promises.
        unknown_fits: Whether a fact that is not known may be anything.
    """
    for field, name, unit in _FIXED:
        wanted, has = getattr(limits, field), getattr(found, field)
        # Nobody writes a rate of 30000/1001 frames a second in full.
        differs = not math.isclose(has, wanted, rel_tol=_FPS_AGREE) if field == "fps" else has != wanted
        if wanted and differs and (has or not unknown_fits):
            yield Violation(InvalidRequest, f"{name} must be {wanted}{unit}, is {has or 'unknown'}")


def _called(value: Value) -> str:
    if value.HasField("media"):
        return _media_name(value.media)
    kind = value.WhichOneof("kind")
    return type_name(_PLAIN[kind]) if kind else "nothing"


def _media_name(media: MediaValue) -> str:
    return short_name(MediaType.DESCRIPTOR, MediaType.Name(media.type))


def _check_json(value: struct_pb2.Value) -> Iterator[Violation]:
    try:
        json_format.MessageToDict(value)
    except ValueError:
        yield Violation(InvalidRequest, "has a number that JSON has not: infinity or NaN")


def _check_plain(limits: PinConstraints, value: Value) -> Iterator[Violation]:
    if value.HasField("number"):
        if limits.HasField("minimum") and not value.number >= limits.minimum:
            yield Violation(InvalidRequest, f"must be at least {limits.minimum:g}, is {value.number:g}")
        if limits.HasField("maximum") and not value.number <= limits.maximum:
            yield Violation(InvalidRequest, f"must be at most {limits.maximum:g}, is {value.number:g}")
    if value.HasField("text") and limits.enum_values and value.text not in limits.enum_values:
        yield Violation(InvalidRequest, f"must be one of {listed(limits.enum_values)}; is {value.text[:64]!r}")
    size = len(value.text.encode()) if value.HasField("text") else len(value.binary)
    if 0 < limits.max_size_bytes < size:
        yield Violation(InvalidRequest, f"must be at most {limits.max_size_bytes} bytes, is {size}")


def _check_media(pin: Pin, media: MediaValue) -> Iterator[Violation]:
    if media.type != MEDIA_TYPES.get(pin.type, media.type):
        yield Violation(UnsupportedMediaType, f"takes {type_name(pin.type)}, got {_media_name(media)}")
    elif media.HasField("ref"):
        problems = [*_check_reference(pin.constraints, media.ref)]
        yield from problems or _check_needed(pin, media.ref.metadata)
    elif 0 < pin.constraints.max_size_bytes < len(media.inline):
        yield _too_large(pin.constraints, len(media.inline))


def _check_needed(pin: Pin, facts: MediaFacts) -> Iterator[Violation]:
    if missing := [name for field, name in _NEEDED.get(pin.type, ()) if not getattr(facts, field)]:
        text = f"is media whose {' and '.join(missing)} nobody has read from its bytes"
        yield Violation(InvalidRequest, text)


def _check_reference(limits: PinConstraints, reference: MediaReference) -> Iterator[Violation]:
    facts = reference.metadata
    if limits.max_size_bytes and not 0 < reference.size_bytes <= limits.max_size_bytes:
        yield _too_large(limits, reference.size_bytes)
    if limits.mime_types and not any(accepts(pattern, facts.mime_type) for pattern in limits.mime_types):
        text = f"mimeType must be {listed(limits.mime_types)}; is {facts.mime_type or 'unknown'}"
        yield Violation(UnsupportedMediaType, text)
    yield from check_fixed(limits, facts)
    most, lasts = limits.max_duration_seconds, facts.duration_seconds
    if most and not 0 < lasts <= most:
        kind, found = (MediaTooLarge, f"{lasts:g} s") if lasts else (InvalidRequest, "for an unknown time")
        yield Violation(kind, f"must last at most {most:g} s, lasts {found}")


def _too_large(limits: PinConstraints, size: int) -> Violation:
    kind = MediaTooLarge if size else InvalidRequest
    return Violation(kind, f"must be at most {limits.max_size_bytes} bytes, is {size or 'of unknown size'}")
