"""Which values enter which pins: pin against pin before a run, value against pin within it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from google.protobuf import struct_pb2

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MeshError, UnsupportedMediaType
from mediamesh.wire.json import short_name

__all__ = ["MEDIA_OF", "clash", "converted", "misfit", "plain_misfit", "spelled"]

# The kind of media on each pin that carries media.
MEDIA_OF: Mapping[int, media_pb2.MediaType.ValueType] = {
    pin_pb2.PIN_TYPE_IMAGE: media_pb2.MEDIA_TYPE_IMAGE,
    pin_pb2.PIN_TYPE_AUDIO: media_pb2.MEDIA_TYPE_AUDIO,
    pin_pb2.PIN_TYPE_VIDEO: media_pb2.MEDIA_TYPE_VIDEO,
    pin_pb2.PIN_TYPE_DOCUMENT: media_pb2.MEDIA_TYPE_DOCUMENT,
}
_TO_JSON = {pin_pb2.PIN_TYPE_STRING, pin_pb2.PIN_TYPE_NUMBER, pin_pb2.PIN_TYPE_BOOLEAN, pin_pb2.PIN_TYPE_JSON}
_KIND_OF = {
    pin_pb2.PIN_TYPE_STRING: "text",
    pin_pb2.PIN_TYPE_NUMBER: "number",
    pin_pb2.PIN_TYPE_BOOLEAN: "boolean",
    pin_pb2.PIN_TYPE_JSON: "json",
    pin_pb2.PIN_TYPE_BINARY: "binary",
    pin_pb2.PIN_TYPE_STREAM: "stream",
}
# Facts that must be equal where a pin asks for them, with the unit that people read.
_EXACT = (
    ("sample_rate_hz", "sample rate", " Hz"),
    ("channels", "number of channels", ""),
    ("encoding", "encoding", ""),
    ("width", "width", " px"),
    ("height", "height", " px"),
    ("fps", "frame rate", " frames/s"),
)


def spelled(kind: pin_pb2.PinType.ValueType) -> str:
    """Return the name of a pin type as flows write it."""
    return short_name(pin_pb2.PinType.DESCRIPTOR, pin_pb2.PinType.Name(kind))


def clash(source: pin_pb2.Pin, target: pin_pb2.Pin) -> str | None:
    """Return why what leaves one pin cannot enter the other; None when it can, as far as the pins tell."""
    if source.type != target.type:
        widened = (target.type == pin_pb2.PIN_TYPE_JSON and source.type in _TO_JSON) or (
            target.type == pin_pb2.PIN_TYPE_BINARY and source.type in MEDIA_OF
        )
        return None if widened else f"{spelled(source.type)} does not fit {spelled(target.type)}"
    given, wanted = source.constraints, target.constraints
    if given.mime_types and wanted.mime_types and not _share(given.mime_types, wanted.mime_types):
        return f"media type {_listed(given.mime_types)} does not fit {_listed(wanted.mime_types)}"
    for field, name, unit in _EXACT:
        has, needs = getattr(given, field), getattr(wanted, field)
        if has and needs and has != needs:
            return f"the {name} {has}{unit} does not fit {needs}{unit}; convert between them"
    if given.enum_values and wanted.enum_values and not set(given.enum_values) & set(wanted.enum_values):
        return f"{_listed(given.enum_values)} does not fit {_listed(wanted.enum_values)}"
    return None


def misfit(value: value_pb2.Value, pin: pin_pb2.Pin) -> MeshError | None:
    """Return what is wrong with a value that would enter a pin, without naming the pin; None when it fits."""
    kind = value.WhichOneof("kind")
    if kind == "media" and pin.type in {*MEDIA_OF, pin_pb2.PIN_TYPE_BINARY}:
        return _media_misfit(value.media, pin)
    if pin.type in MEDIA_OF:
        return UnsupportedMediaType(f"{_called(value)} does not fit {spelled(pin.type)}")
    if kind is None or kind != _KIND_OF[pin.type]:
        return InvalidRequest(f"{_called(value)} does not fit {spelled(pin.type)}")
    if kind == "binary" and 0 < pin.constraints.max_size_bytes < len(value.binary):
        return MediaTooLarge(f"{len(value.binary)} bytes are more than {pin.constraints.max_size_bytes}")
    problem = next(_scalar_misfits(getattr(value, kind), pin), None)
    return InvalidRequest(problem) if problem else None


def plain_misfit(value: Any, pin: pin_pb2.Pin) -> str | None:
    """Return why a value from the text of a flow does not fit a pin; None when it fits."""
    wanted: Mapping[int, Any] = {
        pin_pb2.PIN_TYPE_STRING: str,
        pin_pb2.PIN_TYPE_NUMBER: int | float,
        pin_pb2.PIN_TYPE_BOOLEAN: bool,
        pin_pb2.PIN_TYPE_JSON: object,
    }
    if pin.type not in wanted:
        return f"a constant cannot be {spelled(pin.type)}"
    is_kind = isinstance(value, wanted[pin.type])
    if not is_kind or (pin.type == pin_pb2.PIN_TYPE_NUMBER and isinstance(value, bool)):
        return f"it must be {spelled(pin.type)}, not {_shown(value)}"
    return next(_scalar_misfits(value, pin), None)


def converted(value: value_pb2.Value, pin: pin_pb2.Pin) -> value_pb2.Value:
    """Return a value in the form that a pin takes: text, numbers and booleans become JSON on a JSON pin."""
    kind = value.WhichOneof("kind")
    if pin.type != pin_pb2.PIN_TYPE_JSON or kind not in {"text", "number", "boolean"}:
        return value
    field = {"text": "string_value", "number": "number_value", "boolean": "bool_value"}[kind]
    return value_pb2.Value(json=struct_pb2.Value(**{field: getattr(value, kind)}))


def _media_misfit(media: media_pb2.MediaValue, pin: pin_pb2.Pin) -> MeshError | None:
    wanted, limits = MEDIA_OF.get(pin.type), pin.constraints
    if wanted is not None and media.type != wanted:
        called = short_name(media_pb2.MediaType.DESCRIPTOR, media_pb2.MediaType.Name(media.type))
        return UnsupportedMediaType(f"{called} does not fit {spelled(pin.type)}")
    size = media.ref.size_bytes or len(media.inline)
    if 0 < limits.max_size_bytes < size:
        return MediaTooLarge(f"{size} bytes are more than {limits.max_size_bytes}", limit=limits.max_size_bytes)
    facts = media.ref.metadata
    if facts.mime_type and limits.mime_types and not _share([facts.mime_type], limits.mime_types):
        return UnsupportedMediaType(f"media type {facts.mime_type} does not fit {_listed(limits.mime_types)}")
    if 0 < limits.max_duration_seconds < facts.duration_seconds:
        return MediaTooLarge(f"{facts.duration_seconds:g} s are more than {limits.max_duration_seconds:g} s")
    for field, name, unit in _EXACT:
        has, needs = getattr(facts, field), getattr(limits, field)
        if has and needs and has != needs:
            return UnsupportedMediaType(f"the {name} {has}{unit} does not fit {needs}{unit}")
    return None


def _scalar_misfits(value: Any, pin: pin_pb2.Pin) -> Iterator[str]:
    limits = pin.constraints
    if isinstance(value, str) and limits.enum_values and value not in limits.enum_values:
        yield f"{_shown(value)} is not one of {_listed(limits.enum_values)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if limits.HasField("minimum") and value < limits.minimum:
            yield f"{value:g} is below {limits.minimum:g}"
        if limits.HasField("maximum") and value > limits.maximum:
            yield f"{value:g} is above {limits.maximum:g}"


def _share(given: Any, wanted: Any) -> bool:
    return any(fnmatchcase(a, b) or fnmatchcase(b, a) for a in given for b in wanted)


def _listed(names: Any) -> str:
    return " or ".join(f"`{name}`" for name in list(names)[:16])


def _called(value: value_pb2.Value) -> str:
    return {"text": "string", None: "nothing"}.get(value.WhichOneof("kind"), str(value.WhichOneof("kind")))


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    kind = {str: "string", bool: "boolean", int: "number", float: "number", dict: "json", list: "json"}
    return f"the {kind.get(type(value), 'value')} {text[:64]}" if value is not None else "nothing"
