"""Messages as the JSON edges show them: enum values short and lower-case, 64-bit integers as numbers.

It is protobuf's JSON mapping with those two differences, which the contract of the edges asks for:
``{"type": "image", "ref": {"url": "s3://bucket/key", "size": 2048576}}``. The keys of maps and objects come sorted, as
protobuf keeps them in no order: one message is the same bytes whenever and wherever it is spelled.

What that mapping has no words for, as an agent may send it, does not hide the rest: infinity and NaN in plain values
stand there as text, a time beyond all years not at all, and a detail of an error that is not known here as a Struct of
its type and its bytes.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from mediamesh.wire.plain_values import plain_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

_INT64 = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}

_UNSPELLABLE = (TypeError, ValueError, KeyError, DecodeError, json_format.Error)

# From here on a double no longer holds every whole number.
_EXACT = 2**53


def to_json(message: Message) -> str:
    """Return the message as one line of JSON."""
    return json.dumps(to_object(message), ensure_ascii=False, separators=(",", ":"))


def to_object(message: Message) -> dict[str, Any]:
    """Return the message as what ``json.dumps`` takes."""
    try:
        spelled: dict[str, Any] = json_format.MessageToDict(message)
    except _UNSPELLABLE:
        mended = copy.deepcopy(message)
        _mend(mended)
        spelled = json_format.MessageToDict(mended)
    return _edge_form(spelled, message.DESCRIPTOR)


def short_name(enum: EnumDescriptor, value: str) -> str:
    """Return ``MEDIA_TYPE_IMAGE`` as ``image``."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.removeprefix(prefix).lower()


def _mend(message: Message) -> None:
    """Change what protobuf's JSON cannot say."""
    for field, found in message.ListFields():
        if field.message_type is None or not field.is_repeated:
            parts = [found] if field.message_type is not None else []
        elif field.message_type.GetOptions().map_entry:
            parts = list(found.values()) if field.message_type.fields_by_name["value"].message_type is not None else []
        else:
            parts = list(found)
        for part in parts:
            match part:
                case any_pb2.Any() if not _is_spellable(part):
                    told = struct_pb2.Struct()
                    told.update({"@type": part.type_url, "bytes": base64.b64encode(part.value).decode()})
                    part.Pack(told)
                case timestamp_pb2.Timestamp() | duration_pb2.Duration() if not _is_spellable(part):
                    message.ClearField(field.name)
                case struct_pb2.Value(number_value=number) if not math.isfinite(number):
                    part.string_value = plain_of(part)
                case _:
                    _mend(part)


def _is_spellable(part: Message) -> bool:
    try:
        json_format.MessageToDict(part)
    except _UNSPELLABLE:
        return False
    return True


def _edge_form(spelled: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    if descriptor.full_name.startswith("google.protobuf."):
        return {name: _plain(spelled[name]) for name in sorted(spelled)}
    by_json_name = {field.json_name: field for field in descriptor.fields}
    return {
        name: _edge_value(value, by_json_name[name]) if name in by_json_name else value
        for name, value in spelled.items()
    }


def _edge_value(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = field.message_type.fields_by_name["value"]
        return {key: _edge_value(value[key], of_value) for key in sorted(value)}
    if isinstance(value, list) and field.is_repeated:
        return [_edge_scalar(entry, field) for entry in value]
    return _edge_scalar(value, field)


def _edge_scalar(value: Any, field: FieldDescriptor) -> Any:
    if field.enum_type is not None and isinstance(value, str):
        return short_name(field.enum_type, value)
    if field.message_type is not None and isinstance(value, dict):
        return _edge_form(value, field.message_type)
    if field.cpp_type in _INT64:
        return int(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Spell whole numbers without a fraction, as every other JSON library does: all of protobuf's are doubles."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    return value
