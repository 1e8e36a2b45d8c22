"""Which pins feed which, and what a value on its way between them becomes."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from google.protobuf import struct_pb2

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.wire.pins import MEDIA_TYPES, accepts, check_fixed, check_value, listed, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mediamesh.wire.errors import InvalidRequest

__all__ = ["clash", "converted", "misfit"]

_TO_JSON = {pin_pb2.PIN_TYPE_STRING, pin_pb2.PIN_TYPE_NUMBER, pin_pb2.PIN_TYPE_BOOLEAN}


def clash(source: pin_pb2.Pin, target: pin_pb2.Pin) -> str | None:
    """Return why what leaves one pin cannot enter the other; None when it can, as far as the pins tell."""
    if source.type != target.type:
        return None if _widens(source, target) else f"takes {type_name(target.type)}, got {type_name(source.type)}"
    given, wanted = source.constraints, target.constraints
    if given.mime_types and wanted.mime_types and not _meet(given.mime_types, wanted.mime_types):
        return f"mimeType must be {listed(wanted.mime_types)}; is {listed(given.mime_types)}; convert between them"
    for violation in check_fixed(wanted, given, unknown_fits=True):
        return f"{violation.text}; convert between them"
    if given.enum_values and wanted.enum_values and not set(given.enum_values) & set(wanted.enum_values):
        return f"must be one of {listed(wanted.enum_values)}; is one of {listed(given.enum_values)}"
    return None


def misfit(value: value_pb2.Value, pin: pin_pb2.Pin) -> InvalidRequest | None:
    """Return what is wrong with a value that would enter a pin, without naming the pin; None when it fits."""
    violation = next(check_value(pin, value), None)
    return violation.kind(violation.text) if violation else None


def converted(value: value_pb2.Value, pin: pin_pb2.Pin) -> value_pb2.Value:
    """Return a value in the form that a pin takes: text, numbers and booleans become JSON on a JSON pin."""
    kind = value.WhichOneof("kind")
    if pin.type != pin_pb2.PIN_TYPE_JSON or kind not in {"text", "number", "boolean"}:
        return value
    field = {"text": "string_value", "number": "number_value", "boolean": "bool_value"}[kind]
    return value_pb2.Value(json=struct_pb2.Value(**{field: getattr(value, kind)}))


def _widens(source: pin_pb2.Pin, target: pin_pb2.Pin) -> bool:
    return (target.type == pin_pb2.PIN_TYPE_JSON and source.type in _TO_JSON) or (
        target.type == pin_pb2.PIN_TYPE_BINARY and source.type in MEDIA_TYPES
    )


def _meet(given: Iterable[str], wanted: Iterable[str]) -> bool:
    return any(accepts(a, b) or accepts(b, a) for a, b in product(given, wanted))
