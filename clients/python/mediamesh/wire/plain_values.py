"""JSON values as protobuf keeps them, and back."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import struct_pb2

from mediamesh.wire.errors import InvalidRequest

__all__ = ["plain_of", "value_of"]

# protobuf's parsers take a hundred messages within each other; a level of JSON is two of them.
_DEEPEST = 40
# From here on a double no longer holds every whole number.
_EXACT = 2**53


def plain_of(value: struct_pb2.Value) -> Any:
    """Return a value as what ``json.dumps`` takes: whole numbers without a fraction, keys sorted."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            fields = value.struct_value.fields
            return {name: plain_of(fields[name]) for name in sorted(fields)}
        case "list_value":
            return [plain_of(entry) for entry in value.list_value.values]
    return None


def value_of(plain: Any, path: str) -> struct_pb2.Value:
    """Return what ``json.loads`` gave as a value.

    Raises:
        InvalidRequest: it nests too deep, or has text or a number that protobuf cannot hold.
    """
    value = struct_pb2.Value()
    try:
        _fill(value, plain, 0)
    except _TooDeepError:
        raise InvalidRequest.of_field(path, f"nests deeper than {_DEEPEST}") from None
    except OverflowError:
        raise InvalidRequest.of_field(path, "has a number larger than a double holds") from None
    except ValueError:
        raise InvalidRequest.of_field(path, "must be text that UTF-8 can carry") from None
    return value


class _TooDeepError(Exception):
    pass


def _number(number: float) -> float | int | str:
    if not math.isfinite(number):
        # JSON has none of them; protobuf spells them so elsewhere.
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(number, "NaN")
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _fill(value: struct_pb2.Value, plain: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise _TooDeepError
    match plain:
        case None:
            value.null_value = struct_pb2.NULL_VALUE
        case bool():
            value.bool_value = plain
        case int() | float():
            value.number_value = _double(plain)
        case str():
            value.string_value = plain
        case list():
            entries = value.list_value.values
            entries.extend(struct_pb2.Value() for _ in plain)
            value.list_value.SetInParent()
            for index, entry in enumerate(plain):
                _fill(entries[index], entry, depth + 1)
        case dict():
            value.struct_value.SetInParent()
            fields = value.struct_value.fields
            for name, entry in plain.items():
                _fill(fields[name], entry, depth + 1)


def _double(number: float) -> float:
    double = float(number)
    if not math.isfinite(double):
        raise OverflowError
    return double
