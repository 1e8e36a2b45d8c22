"""Reads GGUF files: metadata, and tensors of the types that the models of the manifest use.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every length and offset in the file is held
against its size before it is used, so that a damaged file is refused with a sentence.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]
    Floats = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["BLOCK", "F32", "Q4_1", "Q8_0", "Gguf", "blocks_of_eight_bits", "blocks_of_four_bits"]

Value: TypeAlias = "int | float | bool | str | list[Value]"

BLOCK = 32  # elements of a quantised block
F32, Q4_1, Q8_0 = 0, 3, 8  # ggml_type
# Elements and bytes of a block, by ggml_type.
_LAYOUT = {F32: (1, 4), Q4_1: (BLOCK, 20), Q8_0: (BLOCK, 34)}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 65536
_MOST_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: int
    offset: int


class Gguf:
    """An open GGUF file; tensors are views of the file.

    Attributes:
        metadata: What the file says of itself.

    Args:
        path: The file.

    Raises:
        BadWeights: the file is no GGUF file of version 2 or 3, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file() or not path.stat().st_size:
            raise BadWeights(f"{path}: there is no such file, or it is empty.")
        self._path = path
        self._data: Bytes = np.memmap(path, np.uint8, mode="r")
        reader = _Reader(path, self._data)
        if reader.take(4) != b"GGUF":
            raise BadWeights(f"{path}: is no GGUF file.")
        if (version := reader.number("I")) not in {2, 3}:
            raise BadWeights(f"{path}: is GGUF version {version}, expected 2 or 3.")
        tensors, entries = reader.count("tensors"), reader.count("metadata entries")
        self.metadata: Mapping[str, Value] = MappingProxyType(
            {reader.text(): reader.value() for _ in range(entries)}
        )  # fmt: skip
        self._tensors = {reader.text(): reader.tensor() for _ in range(tensors)}
        alignment = self.integer("general.alignment", 32)
        if alignment < 8 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise BadWeights(f"{path}: general.alignment is {alignment}, expected a power of two from 8 on.")
        self._base = -(-reader.at // alignment) * alignment

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number of the metadata.

        Raises:
            BadWeights: it is not there, or is none.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadWeights(f"{self._path}: {key} is {value!r}, expected a whole number.")
        return value

    def number(self, key: str) -> float:
        """Return a number of the metadata.

        Raises:
            BadWeights: it is not there, or is none.
        """
        value = self.metadata.get(key)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadWeights(f"{self._path}: {key} is {value!r}, expected a number.")
        return float(value)

    def texts(self, key: str) -> list[str]:
        """Return a list of texts of the metadata.

        Raises:
            BadWeights: it is not there, or is none.
        """
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadWeights(f"{self._path}: {key} is no list of texts.")
        return [item for item in value if isinstance(item, str)]

    def raw(self, name: str, shape: tuple[int, ...], kind: int) -> Bytes:
        """Return the bytes of a tensor: one row for each block, or one of 4 bytes for each F32 element.

        Args:
            name: The tensor.
            shape: The shape it must have, rows first.
            kind: The ggml_type it must have.

        Raises:
            BadWeights: there is no such tensor in the file, or not all of it.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise BadWeights(f"{self._path}: there is no tensor {name!r}.")
        if (tensor.shape, tensor.kind) != (shape, kind):
            raise BadWeights(
                f"{self._path}: tensor {name!r} has shape {list(tensor.shape)} and ggml_type {tensor.kind}, expected "
                f"{list(shape)} and {kind}."
            )
        elements, size = _LAYOUT[kind]
        if shape[-1] % elements:
            raise BadWeights(f"{self._path}: tensor {name!r}: rows of {shape[-1]} are no multiple of {elements}.")
        blocks, begin = math.prod(shape) // elements, self._base + tensor.offset
        if begin + blocks * size > self._data.size:
            raise BadWeights(f"{self._path}: tensor {name!r} ends behind the end of the file.")
        return self._data[begin : begin + blocks * size].reshape(blocks, size)

    def floats(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return an F32 tensor; raises what :meth:`raw` does."""
        return self.raw(name, shape, F32).view("<f4").reshape(shape)


def blocks_of_four_bits(raw: Bytes, rows: int) -> tuple[Bytes, Floats, Floats]:
    """Take Q4_1 blocks apart: element = scale * quant + offset.

    Returns:
        Quants 0 to 15 [rows, blocks, 32], scales and offsets [rows, blocks].
    """
    blocks = raw.reshape(rows, -1, raw.shape[-1])
    scales, offsets = (_halves(blocks[..., begin : begin + 2]) for begin in (0, 2))
    packed = blocks[..., 4:]  # the low nibbles are the first 16 elements
    quants: Bytes = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)
    return quants, scales, offsets


def blocks_of_eight_bits(raw: Bytes, rows: int) -> tuple[Bytes, Floats]:
    """Take Q8_0 blocks apart: element = scale * (quant - 128).

    Returns:
        Quants 0 to 255 [rows, blocks, 32], scales [rows, blocks].
    """
    blocks = raw.reshape(rows, -1, raw.shape[-1])
    return blocks[..., 2:] ^ np.uint8(128), _halves(blocks[..., :2])  # flipping the sign bit adds 128


def _halves(pairs: Bytes) -> Floats:
    return np.ascontiguousarray(pairs).view("<f2")[..., 0].astype(np.float32)


class _Reader:
    """Walks the head of the file."""

    def __init__(self, path: Path, data: Bytes) -> None:
        self._path, self._data = path, data
        self.at = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise BadWeights(f"{self._path}: is cut short: {end} bytes expected, {len(self._data)} there.")
        content = self._data[self.at : end].tobytes()
        self.at = end
        return content

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def count(self, what: str) -> int:
        count: int = self.number("Q")
        if count > _MOST_ENTRIES:
            raise BadWeights(f"{self._path}: claims {count} {what}, at most {_MOST_ENTRIES} are read.")
        return count

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self) -> Value:
        kind = self.number("I")
        if kind != _ARRAY:
            return self._scalar(kind)
        inner, length = self.number("I"), self.number("Q")
        # Each element takes a byte at least: no list is made that the file cannot hold.
        if inner == _ARRAY or length > len(self._data) - self.at:
            raise BadWeights(f"{self._path}: holds a list of {length} elements of type {inner}, which it cannot.")
        return [self._scalar(inner) for _ in range(length)]

    def tensor(self) -> _Tensor:
        dimensions = self.number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise BadWeights(f"{self._path}: a tensor has {dimensions} dimensions, expected 1 to {_MOST_DIMENSIONS}.")
        sizes = [self.number("Q") for _ in range(dimensions)]
        return _Tensor(tuple(reversed(sizes)), self.number("I"), self.number("Q"))

    def _scalar(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise BadWeights(f"{self._path}: metadata of type {kind}, which GGUF does not have.")
        value: Value = self.number(_SCALARS[kind])
        return value
