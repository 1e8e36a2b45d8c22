"""Memory for keys and values: a row for every running request, of the whole context each.

The rows are address space; the operating system gives them memory page by page as tokens come, and takes it back when a
request leaves. So nothing is copied when a sequence grows, rows need not be of one length, and what is used is what the
tokens that are there need.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

__all__ = ["Cache", "CacheTensor"]

# A row of a multiple of this many tokens is a multiple of a page long, whatever the heads.
_ROUND = 4096


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """What a model says of one tensor of its cache.

    Attributes:
        heads: Heads of keys and values.
        head: Width of a head.
        dtype: FP32 or FP16.
    """

    heads: int
    head: int
    dtype: np.dtype[Any]


class Cache:
    """The rows of all layers.

    Args:
        tensors: The tensors by name.
        rows: How many requests run at a time.
        context: Most tokens of a row.

    Attributes:
        capacity: Tokens for which a row has addresses.
        token_bytes: Bytes of a token in all tensors.
    """

    def __init__(self, tensors: Mapping[str, CacheTensor], *, rows: int, context: int) -> None:
        self.capacity = -(-context // _ROUND) * _ROUND
        self.token_bytes = sum(spec.heads * spec.head * spec.dtype.itemsize for spec in tensors.values())
        self._maps: dict[str, mmap.mmap] = {}
        self._arrays: dict[str, Array] = {}
        for name, spec in tensors.items():
            shape = (rows, spec.heads, self.capacity, spec.head)
            memory = mmap.mmap(-1, int(np.prod(shape)) * spec.dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                # A page of 2 MB for the first token of every head would be the whole context at once.
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            self._maps[name] = memory
            self._arrays[name] = np.frombuffer(memory, spec.dtype).reshape(shape)

    def rows(self, name: str, first: int, count: int) -> Array:
        """Return a view of some rows of a tensor [count, heads, capacity, head]."""
        return self._arrays[name][first : first + count]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of a row into another."""
        for array in self._arrays.values():
            array[target, :, :tokens] = array[source, :, :tokens]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of a row into another, and give the row back."""
        self.copy(source, target, tokens)
        self.release(source)

    def release(self, row: int) -> None:
        """Give the memory of a row back; it reads as zeros until it is written."""
        for name, memory in self._maps.items():
            size = self._arrays[name][row].nbytes
            if hasattr(mmap, "MADV_DONTNEED"):
                memory.madvise(mmap.MADV_DONTNEED, row * size, size)

    def close(self) -> None:
        """Give all memory back; the rows must not be used any more."""
        self._arrays.clear()
        self._maps.clear()  # unmapped with the last view of each
