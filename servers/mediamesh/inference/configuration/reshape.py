"""Tensors in the shape that callers see, and in the one that the model takes: ``reshape`` of config.pbtxt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from mediamesh.api.inference.v2 import model_config_pb2 as pb

    Array = np.ndarray[Any, Any]

__all__ = ["Reshapes"]


class _Pair(NamedTuple):
    """The sizes of a tensor without its batch dimension, -1 for any: as callers see it, and as the model does."""

    seen: tuple[int, ...]
    own: tuple[int, ...]


class Reshapes:
    """What a configuration reshapes; false when that is nothing."""

    def __init__(self, config: pb.ModelConfig) -> None:
        self._batch = 1 if config.max_batch_size else 0
        self._inputs = _pairs(config.input)
        self._outputs = _pairs(config.output)

    def __bool__(self) -> bool:
        return bool(self._inputs or self._outputs)

    def inward(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return inputs as the model takes them."""
        if not self._inputs:
            return inputs
        return {name: self._reshaped(name, array, self._inputs.get(name)) for name, array in inputs.items()}

    def outward(self, names: Sequence[str], arrays: Sequence[Array]) -> list[Array]:
        """Return outputs as callers see them.

        Raises:
            MeshError: the model's output does not have the shape that it says it has.
        """
        pairs = (self._outputs.get(name) for name in names)
        return [
            self._reshaped(name, array, _Pair(pair.own, pair.seen) if pair else None)
            for name, array, pair in zip(names, arrays, pairs, strict=True)
        ]

    def _reshaped(self, name: str, array: Array, pair: _Pair | None) -> Array:
        if pair is None:
            return array
        begin, target = pair
        given = array.shape[self._batch :]
        if len(given) != len(begin):
            raise MeshError(f"Tensor {name!r} has shape {list(array.shape)}, which cannot become {list(target)}.")
        # The variable sizes keep their order, as in Triton.
        variable = iter([size for size, named in zip(given, begin, strict=True) if named < 0])
        return array.reshape(*array.shape[: self._batch], *(next(variable) if size < 0 else size for size in target))


def _pairs(tensors: Iterable[pb.ModelInput | pb.ModelOutput]) -> dict[str, _Pair]:
    return {
        tensor.name: _Pair(tuple(tensor.dims), tuple(tensor.reshape.shape))
        for tensor in tensors
        if tensor.HasField("reshape")
    }
