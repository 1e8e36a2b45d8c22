"""Weights out of ``model.bin`` of CTranslate2, binary version 6: names, shapes and values one after the other."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    Array = np.ndarray[Any, Any]

__all__ = ["read_weights"]

_BINARY_VERSION = 6
_DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_MOST_DIMENSIONS = 8


def read_weights(path: Path, specification: str) -> dict[str, Array]:
    """Return the variables by name; names that stand for the same variable share it.

    Args:
        path: The file.
        specification: Kind of model that it must say it is, such as ``WhisperSpec``.

    Raises:
        BadWeights: the file is of another kind or version, or damaged.
    """
    with path.open("rb") as file:
        try:
            (version,) = _numbers(file, "<I")
            if version != _BINARY_VERSION:
                raise BadWeights(f"{path.name}: binary version {version}, expected {_BINARY_VERSION}.")
            kind = _text(file)
            if kind != specification:
                raise BadWeights(f"{path.name}: a {kind}, expected a {specification}.")
            _revision, count = _numbers(file, "<II")
            weights = dict(_variable(file) for _ in range(count))
            (aliases,) = _numbers(file, "<I")
            for _ in range(aliases):
                alias = _text(file)
                weights[alias] = weights[_text(file)]
        except (EOFError, KeyError, ValueError) as error:
            raise BadWeights(f"{path.name}: damaged near byte {file.tell()}: {error}") from error
    return weights


def _variable(file: IO[bytes]) -> tuple[str, Array]:
    name = _text(file)
    (rank,) = _numbers(file, "<B")
    if rank > _MOST_DIMENSIONS:
        raise ValueError(f"{name} has {rank} dimensions")
    shape = _numbers(file, f"<{rank}I")
    dtype, size = _numbers(file, "<BI")
    return name, np.frombuffer(_read(file, size), _DTYPES[dtype]).reshape(shape)


def _text(file: IO[bytes]) -> str:
    """Read a text, which is written with its length and a zero byte at the end."""
    (length,) = _numbers(file, "<H")
    return _read(file, length)[:-1].decode()


def _numbers(file: IO[bytes], form: str) -> tuple[int, ...]:
    return struct.unpack(form, _read(file, struct.calcsize(form)))


def _read(file: IO[bytes], size: int) -> bytes:
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:  # asked before reading, as a read makes room for all that it is asked for
        raise EOFError(f"{size} bytes are announced, {left} are left")
    return file.read(size)
