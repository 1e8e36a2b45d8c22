"""Tensors on the wire: Triton's data types as numpy arrays, without a copy where the bytes allow it.

Two types have no twin in numpy. BYTES is an object array of ``bytes``; each element goes as its length (four bytes,
little-endian) and its content. BF16 is an array of its bit patterns, ``uint16``.
"""

from __future__ import annotations

import math
import struct
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mediamesh.api.inference.v2.inference_service_pb2 import InferTensorContents

    Array = np.ndarray[Any, Any]

__all__ = ["DTYPES", "bf16_to_fp32", "datatype_of", "from_contents", "from_raw", "to_bytes", "to_raw"]

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        "BYTES": np.dtype(np.object_),
    }
)
_BY_DTYPE = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}
# Which list of InferTensorContents holds the elements of a type; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_LENGTH = struct.Struct("<I")
_NATIVE = sys.byteorder == "little"
# Types whose arrays hold on this machine just what goes over the wire.
_AS_IS = frozenset(dtype for dtype in _BY_DTYPE if not dtype.hasobject and dtype.isnative)


def datatype_of(array: Array) -> str:
    """Return the wire's name for an array's type.

    Raises:
        ValueError: the wire has none; complex numbers and dates, say.
    """
    if array.dtype.name == "bfloat16":  # from ml_dtypes, which numpy does not bring
        return "BF16"
    if array.dtype.kind in "SU":
        return "BYTES"
    name = _BY_DTYPE.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise ValueError(f"no tensor holds elements of type {array.dtype}; there are {', '.join(DTYPES)}")
    return name


def to_raw(array: Array) -> bytes | memoryview:
    """Return the elements in row-major order, little-endian; a view of the array's memory where it holds just that.

    Raises:
        ValueError: the wire has no such type.
    """
    if array.dtype in _AS_IS and array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8).data
    if datatype_of(array) == "BYTES":
        return b"".join(_packed(element) for element in array.ravel())
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not _NATIVE):
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_bytes(array: Array) -> bytes:
    """Return what `to_raw` does, as bytes of its own."""
    return array.tobytes() if array.dtype in _AS_IS else bytes(to_raw(array))


def from_raw(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> Array:
    """Return the tensor that raw bytes hold: a read-only view of them, except for BYTES.

    Raises:
        ValueError: the bytes do not hold such a tensor.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _shaped(_unpacked(raw, count), shape)
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"holds {len(raw)} bytes, expected {count * dtype.itemsize}")
    array = np.frombuffer(raw, dtype).reshape(shape)
    if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError("holds a BOOL that is neither 0 nor 1")
    return array


def from_contents(datatype: str, shape: Sequence[int], contents: InferTensorContents) -> Array:
    """Return the tensor that a typed list holds.

    Raises:
        ValueError: the list does not hold such a tensor.
    """
    field = _CONTENTS.get(datatype)
    if field is None:
        raise ValueError(f"{datatype} has no typed contents; send it in raw_input_contents")
    elements, count = getattr(contents, field), math.prod(shape)
    if len(elements) != count:
        raise ValueError(f"holds {len(elements)} elements in {field}, expected {count}")
    if datatype == "BYTES":
        return _shaped(list(elements), shape)
    try:
        return np.array(elements, DTYPES[datatype]).reshape(shape)
    except OverflowError as error:
        raise ValueError(f"holds an element that does not fit {datatype}") from error


def bf16_to_fp32(bits: Array) -> Array:
    """Return the values of BF16 bit patterns, which FP32 holds exactly: they are its upper halves."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _packed(element: Any) -> bytes:
    content = element.encode() if isinstance(element, str) else bytes(element)
    return _LENGTH.pack(len(content)) + content


def _unpacked(raw: bytes | memoryview, count: int) -> list[bytes]:
    # An element takes four bytes at least: a shape that claims more is refused before a list of its size is made.
    if len(raw) < count * _LENGTH.size:
        raise ValueError(f"holds {len(raw)} bytes, too few for {count} BYTES elements")
    raw = bytes(raw)  # slices of a view take thrice as long
    elements: list[bytes] = []
    at = 0
    # No further than to what was claimed, however many there are.
    while at < len(raw) and len(elements) < count:
        begin = at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(raw, at)[0] if begin <= len(raw) else len(raw) + 1
        if end > len(raw):
            raise ValueError(f"ends within BYTES element {len(elements)}")
        elements.append(raw[begin:end])
        at = end
    if len(elements) != count:
        raise ValueError(f"holds {len(elements)} BYTES elements, expected {count}")
    if at != len(raw):
        raise ValueError(f"holds more than {count} BYTES elements, {len(raw) - at} bytes of them")
    return elements


def _shaped(elements: list[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)
