"""JSON text that says one thing only, and messages spelled in snake_case both ways.

Reading is strict: an unknown or repeated key, a wrong type or a number out of range is an ``InvalidRequest`` that names
its path. Writing keeps the order of the contract's fields, so one message is the same bytes whenever it is spelled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor

from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.json import short_name
from mediamesh.wire.plain_values import plain_of, value_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

__all__ = ["Spelling", "as_object", "at", "dumps", "known", "loads"]

_DEEPEST = 64
_EXCERPT = 40
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
# JSON lets these stand in a string, and some readers of lines end a line at them.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def dumps(value: Any) -> str:
    """Return a value as JSON on one line, whatever counts as the end of a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text if text.isascii() else text.translate(_LINE_ENDS)


def loads(text: str | bytes | bytearray | memoryview, path: str = "") -> Any:
    """Return the value of a JSON text.

    Raises:
        InvalidRequest: it is no JSON, it repeats a key, or it nests too deep; names the place.
    """
    try:
        whole = text if isinstance(text, str) else bytes(text).decode()
        return json.loads(whole, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest.of_field(path, f"must be UTF-8; byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest.of_field(path, f"must be JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, constants and repeated keys; and brackets without end.
        raise InvalidRequest.of_field(path, f"must be JSON: {str(error)[:200]}") from None


def at(path: str, name: str | int) -> str:
    """Return the path of a part."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


def as_object(value: Any, path: str) -> dict[str, Any]:
    """Return a value that is a JSON object.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(value, dict):
        raise InvalidRequest.of_field(path, f"must be an object, is {_called(value)}")
    return value


def known(value: Any, keys: Mapping[str, Any] | frozenset[str], path: str) -> dict[str, Any]:
    """Return a value that is a JSON object with no other than these keys.

    Raises:
        InvalidRequest: it is none, or has others; names the first.
    """
    given = as_object(value, path)
    for key in given:
        if key not in keys:
            raise InvalidRequest.of_field(at(path, key[:_EXCERPT]), "is unknown here")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How messages are spelled where they are not spelled field by field.

    Attributes:
        writers: What spells messages of a type, by full name.
        readers: What reads them; it gets the value and its path.
        when_set: Fields that are left out when they are zero, by full name of the type; all other scalars always stand.
    """

    writers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    readers: Mapping[str, Callable[[Any, str], Message]] = field(default_factory=dict)
    when_set: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def write(self, message: Message) -> Any:
        """Return a message as what ``dumps`` takes."""
        name = message.DESCRIPTOR.full_name
        writer = self.writers.get(name) or _WRITERS.get(name)
        return writer(message) if writer else self.fields(message)

    def fields(self, message: Message) -> dict[str, Any]:
        """Return the fields of a message, whatever its type."""
        descriptor = message.DESCRIPTOR
        silent = self.when_set.get(descriptor.full_name, frozenset())
        spelled: dict[str, Any] = {}
        for name, part, is_plural, has_presence in _plan(descriptor):
            if has_presence:
                if message.HasField(name):
                    spelled[name] = self._write_one(getattr(message, name), part)
                continue
            value = getattr(message, name)
            if is_plural:
                if value:
                    spelled[name] = [self._write_one(entry, part) for entry in value]
            elif value or name not in silent:
                spelled[name] = self._write_one(value, part)
        return spelled

    def read(self, value: Any, message: type[Message], path: str = "") -> Any:
        """Return the message that a value spells.

        Raises:
            InvalidRequest: it spells none; names the path.
        """
        name = message.DESCRIPTOR.full_name
        reader = self.readers.get(name) or _READERS.get(name)
        return reader(value, path) if reader else self.read_fields(value, message(), path)

    def read_fields(self, value: Any, message: Message, path: str, extra: frozenset[str] = frozenset()) -> Message:
        """Fill a message from an object, field by field, leaving the keys in ``extra`` to the caller, and return it.

        Raises:
            InvalidRequest: a key is none of its fields, or has a wrong value; names the path.
        """
        if path.count(".") + path.count("[") > _DEEPEST:
            raise InvalidRequest.of_field(path[:200], f"nests deeper than {_DEEPEST}")
        by_name = _by_name(message.DESCRIPTOR)
        for key, given in as_object(value, path).items():
            if key in extra:
                continue
            part = by_name.get(key)
            where = at(path, key[:_EXCERPT])
            if part is None:
                raise InvalidRequest.of_field(where, "is unknown here")
            oneof = part.containing_oneof
            if oneof is not None and message.WhichOneof(oneof.name):
                raise InvalidRequest.of_field(where, f"stands beside {message.WhichOneof(oneof.name)}; one is allowed")
            self._read_into(message, part, given, where)
        return message

    def _read_into(self, message: Message, part: FieldDescriptor, given: Any, path: str) -> None:
        if part.is_repeated:
            if not isinstance(given, list):
                raise InvalidRequest.of_field(path, f"must be a list, is {_called(given)}")
            getattr(message, part.name).extend(
                self._read_one(entry, part, at(path, index)) for index, entry in enumerate(given)
            )
        elif part.message_type is None:
            try:
                setattr(message, part.name, self._read_one(given, part, path))
            except ValueError:
                # Half a character: JSON can spell a lone surrogate, UTF-8 cannot.
                raise InvalidRequest.of_field(path, "must be text that UTF-8 can carry") from None
        elif given is not None or part.message_type.full_name == "google.protobuf.Value":
            getattr(message, part.name).CopyFrom(self._read_one(given, part, path))

    def _write_one(self, value: Any, part: FieldDescriptor) -> Any:
        if part.message_type is not None:
            return self.write(value)
        if part.enum_type is not None:
            named = part.enum_type.values_by_number.get(value)
            return short_name(part.enum_type, named.name) if named else str(value)
        return _json_number(value) if part.cpp_type in _FLOATS else value

    def _read_one(self, given: Any, part: FieldDescriptor, path: str) -> Any:
        if part.message_type is not None:
            return self.read(given, message_factory.GetMessageClass(part.message_type), path)
        if part.enum_type is not None:
            return _enum_value(given, part.enum_type, path)
        if part.cpp_type in _RANGES:
            low, high = _RANGES[part.cpp_type]
            if type(given) is not int or not low <= given <= high:
                raise InvalidRequest.of_field(path, f"must be a whole number from {low} to {high}")
            return given
        if part.cpp_type in _FLOATS:
            if type(given) not in {int, float} or not _fits(given):
                raise InvalidRequest.of_field(path, f"must be a number, is {_called(given)}")
            return float(given)
        wanted: type = bool if part.cpp_type == FieldDescriptor.CPPTYPE_BOOL else str
        if type(given) is not wanted:
            raise InvalidRequest.of_field(path, f"must be {_TYPE_NAMES[wanted]}, is {_called(given)}")
        return given


@cache
def _plan(descriptor: Descriptor) -> list[tuple[str, FieldDescriptor, bool, bool]]:
    return [(part.name, part, part.is_repeated, part.has_presence) for part in descriptor.fields]


@cache
def _by_name(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    # protobuf's own mapping breaks at a key that is half a character.
    return dict(descriptor.fields_by_name.items())


def _enum_value(given: Any, enum: EnumDescriptor, path: str) -> int:
    names = {short_name(enum, entry.name): entry.number for entry in enum.values}
    if not isinstance(given, str) or given not in names:
        allowed = ", ".join(name for name, number in names.items() if number)
        raise InvalidRequest.of_field(path, f"must be one of {allowed}")
    return names[given]


def _json_number(value: float) -> float | int | str:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value


def _fits(given: float) -> bool:
    try:
        return math.isfinite(float(given))
    except OverflowError:
        return False


_TYPE_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _called(value: Any) -> str:
    return _TYPE_NAMES[type(value)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated[:_EXCERPT]!r} stands there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _write_time(stamp: timestamp_pb2.Timestamp) -> str | None:
    try:
        return stamp.ToJsonString()
    except ValueError:
        return None


def _read_time(value: Any, path: str) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    try:
        stamp.FromJsonString(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidRequest.of_field(path, "must be a time such as 2026-11-21T13:00:00.123Z") from None
    return stamp


_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": _write_time,
    "google.protobuf.Value": plain_of,
}
_READERS: Mapping[str, Callable[[Any, str], Message]] = {
    "google.protobuf.Timestamp": _read_time,
    "google.protobuf.Value": value_of,
}
