"""Binary frames of a WebSocket: an object of JSON, and bytes of media beside it.

``4 bytes, big-endian: length of the JSON | the JSON, in which the media's data is null | the bytes``
"""

from __future__ import annotations

from typing import Any

from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.strict_json import dumps, loads

__all__ = ["pack", "unpack"]

_HEAD = 4


def pack(spelled: Any, data: bytes) -> bytes:
    """Return a binary frame of an object and the bytes beside it."""
    text = dumps(spelled).encode()
    return b"".join((len(text).to_bytes(_HEAD, "big"), text, data))


def unpack(frame: bytes) -> tuple[Any, bytes | None]:
    """Return the object of a binary frame, and the bytes beside it; None when there are none.

    Raises:
        InvalidRequest: the frame is too short for what it says, or its text is no JSON.
    """
    size = int.from_bytes(frame[:_HEAD], "big")
    if len(frame) < _HEAD + size:
        raise InvalidRequest.of_field(
            "", f"a binary frame must begin with the length of its JSON: says {size}, and has {len(frame)} bytes in all"
        )
    return loads(memoryview(frame)[_HEAD : _HEAD + size]), frame[_HEAD + size :] or None
