"""Messages of the protocol as Triton spells them in JSON: fields by their names, numbers as numbers, none left out.

protobuf's JSON spells 64-bit numbers as texts, which clients of KServe do not expect in a shape.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["plain"]


def plain(message: Message) -> dict[str, Any]:
    """Return a message as JSON's values; a message or a choice that is not set is left out."""
    return {
        field.name: _value(message, field)
        for field in message.DESCRIPTOR.fields
        if field.is_repeated or not field.has_presence or message.HasField(field.name)
    }


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if not field.is_repeated:
        return _one(value, field)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(key): _one(value[key], entry) for key in sorted(value)}
    return [_one(element, field) for element in value]


def _one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value
