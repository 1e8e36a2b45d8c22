"""Elements of JSON lists as values on pins, and back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from google.protobuf import json_format, struct_pb2

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.media.v1.media_pb2 import MediaReference, MediaValue
from mediamesh.orchestrator.pins import converted
from mediamesh.wire.json import to_object
from mediamesh.wire.pins import MEDIA_TYPES, plain_value

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["element_of", "value_of_element"]

_JSON = pin_pb2.Pin(type=pin_pb2.PIN_TYPE_JSON)
_PLAIN = {"json", "text", "number", "boolean"}


def value_of_element(pin: Pin, element: struct_pb2.Value) -> value_pb2.Value:
    """Return an element as the value that it is for a pin.

    Media stands in JSON as ``{"type": "image", "ref": {"url": "s3://..."}}``; only the address counts, as the store
    knows the rest.
    """
    if pin.type not in MEDIA_TYPES or not element.HasField("struct_value"):
        return plain_value(pin, element)
    reference = element.struct_value.fields["ref"].struct_value
    url = reference.fields["url"].string_value
    return value_pb2.Value(media=MediaValue(type=MEDIA_TYPES[pin.type], ref=MediaReference(url=url)))


def element_of(value: value_pb2.Value) -> struct_pb2.Value:
    """Return a value as an element of a list: media as its reference, bytes in base64."""
    kind = value.WhichOneof("kind")
    if kind == "binary":
        return struct_pb2.Value(string_value=base64.b64encode(value.binary).decode())
    if kind == "media":
        return json_format.ParseDict(to_object(value.media), struct_pb2.Value())
    if kind in _PLAIN:
        return converted(value, _JSON).json
    return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
