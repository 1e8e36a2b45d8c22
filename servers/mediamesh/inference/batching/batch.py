"""Joins the tensors of several requests, and splits what the model answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mediamesh.inference.batching.tickets import Ticket

    Array = np.ndarray[Any, Any]

__all__ = ["Staging", "split"]


class Staging:
    """Memory of one worker in which batches are put together; grown to the largest batch seen, then kept.

    Fresh memory of this size costs a page fault for every 4 KB, ten times the copy itself.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}

    def join(self, batch: Sequence[Ticket]) -> Mapping[str, Array]:
        """Return the inputs of a batch, valid until the next call.

        A lone request's tensors are passed on as they are where that can be; all others are copied once.
        """
        first = batch[0].inputs
        if len(batch) == 1:
            return self.aligned(first)
        return {name: self._joined(name, [ticket.inputs[name] for ticket in batch]) for name in first}

    def aligned(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the inputs, with a copy of those that lie across the alignment of their type."""
        if all(array.flags.aligned for array in inputs.values()):
            return inputs
        return {name: array if array.flags.aligned else self._copied(name, array) for name, array in inputs.items()}

    def _copied(self, name: str, array: Array) -> Array:
        target = self._room(name, array.shape, array.dtype)
        np.copyto(target, array)
        return target

    def _joined(self, name: str, arrays: Sequence[Array]) -> Array:
        shape = (sum(array.shape[0] for array in arrays), *arrays[0].shape[1:])
        target = self._room(name, shape, arrays[0].dtype)
        return np.concatenate(arrays, out=target)

    def _room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if dtype.hasobject:
            return np.empty(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size].view(dtype).reshape(shape)


def split(label: str, batch: Sequence[Ticket], outputs: Sequence[Array]) -> list[list[Array]]:
    """Return for each request its rows of every output.

    Raises:
        MeshError: the model's output does not keep the batch dimension.
    """
    if len(batch) == 1:
        return [list(outputs)]
    items = sum(ticket.items for ticket in batch)
    for name, array in zip(batch[0].outputs, outputs, strict=True):
        if not array.ndim or array.shape[0] != items:
            shape = list(array.shape)
            raise MeshError(f"Model {label}: output {name!r} has shape {shape} for a batch of {items} items.")
    shares, begin = [], 0
    for ticket in batch:
        end = begin + ticket.items
        shares.append([array[begin:end] for array in outputs])
        begin = end
    return shares
