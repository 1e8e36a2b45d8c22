"""``ModelInferRequest`` with its tensors beside it: the bytes of a tensor never pass through protobuf.

Parsing a request of 600 KB with protobuf copies it twice, once into the message and once out of it. Here the top level
of the message is walked, ``raw_input_contents`` become views, and protobuf parses the rest, which is small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mediamesh.api.inference.v2.inference_service_pb2 import ModelInferRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STATUS_PARAMETER", "InferRequest", "join", "split"]

# On a stream Triton has room for an error's sentence only; this parameter of the response holds the whole
# google.rpc.Status, in base64.
STATUS_PARAMETER = "mediamesh_status"

_RAW_FIELD = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_TAG = bytes([_RAW_FIELD << 3 | 2])
# Below this protobuf's two copies cost less than a walk in Python.
_WORTH_A_WALK = 16 * 1024


class InferRequest(NamedTuple):
    """A request taken apart.

    Attributes:
        message: The request without ``raw_input_contents``.
        raw: What they held, in order.
    """

    message: ModelInferRequest
    raw: Sequence[bytes | memoryview]


def split(data: bytes) -> InferRequest:
    """Take a serialised ModelInferRequest apart; views hold on to ``data``.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no such message.
    """
    if len(data) >= _WORTH_A_WALK and (spans := _raw_spans(data)) is not None:
        view, rest, at = memoryview(data), [], 0
        for field, _, end in spans:
            rest.append(view[at:field])
            at = end
        rest.append(view[at:])
        return InferRequest(ModelInferRequest.FromString(b"".join(rest)), [view[begin:end] for _, begin, end in spans])
    message = ModelInferRequest.FromString(data)
    raw = list(message.raw_input_contents)
    message.ClearField("raw_input_contents")
    return InferRequest(message, raw)


def join(message: ModelInferRequest, raw: Sequence[bytes | memoryview]) -> bytes:
    """Serialise a request whose tensors lie beside it, with one copy of them."""
    parts: list[bytes | memoryview] = [message.SerializeToString()]
    for content in raw:
        parts += (_RAW_TAG, _varint(len(content)), content)
    return b"".join(parts)


def _raw_spans(data: bytes) -> list[tuple[int, int, int]] | None:
    """Return where each raw content's field begins, and its content begins and ends; None when unsure."""
    spans, at, size = [], 0, len(data)
    try:
        while at < size:
            field = at
            tag, at = _read_varint(data, at)
            match tag & 7:
                case 0:
                    _, at = _read_varint(data, at)
                case 1:
                    at += 8
                case 2:
                    length, begin = _read_varint(data, at)
                    at = begin + length
                    if tag >> 3 == _RAW_FIELD:
                        spans.append((field, begin, at))
                case 5:
                    at += 4
                case _:
                    return None
    except IndexError:
        return None
    return spans if at == size else None


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError("a varint has ten bytes at most")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
