"""Python's values and those of the pins that they enter or leave."""

from __future__ import annotations

import json
from numbers import Real
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, struct_pb2

from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaValue
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.pins import Violation, check_value, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["check_at_agent", "from_value", "to_value"]

_WORDS = {str: "string", float: "number", int: "number", bool: "boolean", bytes: "binary", dict: "json", list: "json"}


def check_at_agent(pin: Pin, value: Value) -> Iterator[Violation]:
    """Yield what makes a value unfit for the pin of an agent, which fetches nothing from addresses elsewhere."""
    yield from check_value(pin, value)
    if value.media.HasField("url"):
        yield Violation(InvalidRequest, "must be a reference into the media store or inline, is an address elsewhere")


def from_value(value: Value) -> Any:
    """Return the value as Python's: str, float, bool, bytes, what JSON gives, or a MediaValue."""
    kind = value.WhichOneof("kind")
    if kind == "json":
        return json_format.MessageToDict(value.json)
    return getattr(value, kind or "text")


def to_value(pin: Pin, given: object) -> Value:
    """Return what Python calls it as a value of the pin's type.

    Raises:
        TypeError: it is of another type, or text that is no UTF-8; the text says which is wanted.
    """
    value: Value | None = None
    match pin.type, given:
        case _, Value():
            value = given
        case PinType.PIN_TYPE_JSON, _:
            value = Value(json=_json(given))
        case PinType.PIN_TYPE_STRING, str():
            value = Value(text=_text(given))
        case PinType.PIN_TYPE_BOOLEAN, bool():
            value = Value(boolean=given)
        case PinType.PIN_TYPE_NUMBER, Real() if not isinstance(given, bool):
            value = Value(number=float(given))
        case PinType.PIN_TYPE_BINARY, bytes() | bytearray() | memoryview():
            value = Value(binary=bytes(given))
        case _, MediaValue():
            value = Value(media=given)
    if value is None:
        got = _WORDS.get(type(given), type(given).__name__)
        raise TypeError(f"takes {type_name(pin.type)}, got {got}")
    return value


def _text(given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise TypeError("takes string, got half a character, which UTF-8 cannot carry") from None
    return given


def _json(given: object) -> struct_pb2.Value:
    try:
        return json_format.Parse(json.dumps(given, allow_nan=False), struct_pb2.Value())
    except (TypeError, ValueError, RecursionError, json_format.ParseError) as error:
        raise TypeError(f"takes json, got something that JSON has not: {error}") from None
