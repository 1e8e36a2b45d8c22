"""Tensor elements as JSON spells them, both ways."""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.inference.datatypes import MOST_TEXTS, check_texts
from mediamesh.wire.tensors import DTYPES, bf16_to_fp32, from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, Any]

__all__ = ["elements_of", "excerpt", "raw_of"]

_INTEGERS, _FLOATS = "iu", "f"
_MOST_SHOWN = 60
_INFINITE_BF16 = 0x7F80


def raw_of(datatype: str, shape: Sequence[int], data: Any, most_texts: int = MOST_TEXTS) -> bytes | memoryview:
    """Return the raw contents of a tensor whose elements JSON spells, flat or nested as its shape.

    Args:
        datatype: Type of its elements.
        shape: Its shape.
        data: The elements.
        most_texts: Most elements of BYTES.

    Raises:
        ValueError: they are not the elements of such a tensor.
    """
    if datatype not in DTYPES:
        raise ValueError(f"is {datatype!r}, expected one of {', '.join(DTYPES)}")
    if not isinstance(data, list):
        raise ValueError(f"holds {excerpt(data)} as data, expected a list")  # noqa: TRY004 - wrong data, not code
    check_texts(datatype, shape, most_texts)
    array = _texts(data, math.prod(shape)) if datatype == "BYTES" else _numbers(datatype, data)
    if array.ndim > 1 and list(array.shape) != list(shape):
        raise ValueError(f"is nested as {list(array.shape)}, expected {list(shape)} or a flat list")
    if array.size != math.prod(shape):
        raise ValueError(f"holds {array.size} elements, expected {math.prod(shape)}")
    return to_raw(array)


def elements_of(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> list[Any]:
    """Return the elements of a tensor as JSON spells them, flat.

    Raises:
        ValueError: a text is not UTF-8, which JSON cannot spell.
    """
    array = from_raw(datatype, shape, raw).ravel()
    if datatype == "BYTES":
        try:
            return [element.decode() for element in array]
        except UnicodeDecodeError as error:
            raise ValueError("holds bytes that are not UTF-8; ask for it as binary data") from error
    elements: list[Any] = (bf16_to_fp32(array) if datatype == "BF16" else array).tolist()
    return elements


def excerpt(value: Any) -> str:
    """Return a value of JSON for an error's sentence, cut short."""
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _texts(data: list[Any], count: int) -> Array:
    """Return texts as bytes; nested lists lose their nesting, which says nothing for texts."""
    try:
        elements = [text.encode() for text in islice(_flat(data), count + 1)]
    except UnicodeEncodeError:
        raise ValueError("holds half a character, which UTF-8 cannot carry") from None
    if len(elements) > count:
        raise ValueError(f"holds more than {count} elements")
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


def _flat(data: list[Any]) -> Iterator[str]:
    for element in data:
        match element:
            case list():
                yield from _flat(element)
            case str():
                yield element
            case _:
                raise ValueError(f"holds {excerpt(element)}, expected texts")


def _numbers(datatype: str, data: list[Any]) -> Array:
    dtype = DTYPES[datatype]
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"holds lists of different lengths, or no numbers: {error}") from None
    if array.size == 0:
        return array.astype(dtype)
    if datatype == "BOOL":
        return _booleans(array)
    if datatype == "BF16" or dtype.kind == _FLOATS:
        if array.dtype.kind not in _INTEGERS + _FLOATS:
            raise ValueError(f"holds {_first_unlike(data, (int, float)) or 'too large a number'}, expected numbers")
        return _fp32_to_bf16(_cast(array, np.dtype(np.float32))) if datatype == "BF16" else _cast(array, dtype)
    if array.dtype.kind not in _INTEGERS:
        if found := _first_unlike(data, (int,)):
            raise ValueError(f"holds {found}, expected whole numbers")
        return _large(data, dtype)
    bounds = np.iinfo(dtype)
    if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
        raise ValueError(f"holds an element outside of {bounds.min} to {bounds.max}")
    return array.astype(dtype)


def _large(data: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return whole numbers beyond 63 bits, which numpy, left to itself, makes floats."""
    try:
        return np.asarray(data, dtype)
    except OverflowError:
        bounds = np.iinfo(dtype)
        raise ValueError(f"holds an element outside of {bounds.min} to {bounds.max}") from None


def _booleans(array: Array) -> Array:
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind in _INTEGERS and ((array == 0) | (array == 1)).all():
        return array.astype(np.bool_)
    raise ValueError("holds an element that is neither true nor false")


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    try:
        # NaN and infinity pass, as they are data; a number that becomes infinite does not.
        with np.errstate(over="raise", invalid="ignore", under="ignore"):
            return array.astype(dtype)
    except FloatingPointError:
        raise ValueError(f"holds an element beyond {np.finfo(dtype).max}") from None


def _fp32_to_bf16(values: Array) -> Array:
    """Return the bit patterns of the nearest BF16 values; ties go to the even one, as in hardware."""
    bits = values.view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if (np.isfinite(values) & (rounded & 0x7FFF == _INFINITE_BF16)).any():
        raise ValueError("holds an element beyond 3.39e+38")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype(np.uint16)


def _first_unlike(data: list[Any], kinds: tuple[type, ...]) -> str:
    """Return the first element of another type, for an error's sentence."""
    for element in data:
        if isinstance(element, list):
            if found := _first_unlike(element, kinds):
                return found
        elif type(element) not in kinds:
            return excerpt(element)
    return ""
