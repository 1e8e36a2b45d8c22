"""Runs a model before its first request: on the samples of ``model_warmup``, or once on zeros.

The first run allocates, and on a GPU chooses kernels and records graphs.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError, file_beside
from mediamesh.inference.datatypes import TO_CONFIG
from mediamesh.wire.errors import MeshError
from mediamesh.wire.tensors import DTYPES, from_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.onnx.session import Session

    Array = np.ndarray[Any, Any]
    Feeds = Mapping[str, Array]

__all__ = ["WarmUp", "samples", "zeros"]

_LOG = logging.getLogger(__name__)
# Where Triton looks for the files that samples name.
_DIRECTORY = "warmup"
_MOST_SAMPLES = 256
_MOST_RUNS = 10_000
_LARGEST_BYTES = 1 << 30
_WIRE = {number: name for name, number in TO_CONFIG.items()}


class WarmUp:
    """The runs that a model makes before its first request.

    Args:
        directory: The model's directory.
        config: Its configuration, complete.
        inputs: Its inputs, in the shapes that callers see.
        fed: More inputs, which no caller gives and the server feeds; they are zero here.

    Raises:
        LoadError: a sample does not fit the model; names its field.
    """

    def __init__(
        self, directory: Path, config: pb.ModelConfig, inputs: Sequence[TensorSpec], fed: Sequence[TensorSpec] = ()
    ) -> None:
        self._config = config
        self._zeros = zeros(inputs, 1)
        if self._zeros is not None:
            self._zeros = {**self._zeros, **_fed(fed, 1)}
        self._samples = [
            (name, {**feeds, **_fed(fed, sample.batch_size or 1)}, count)
            for (name, feeds, count), sample in zip(
                samples(directory, config, inputs), config.model_warmup, strict=True
            )
        ]

    def run(self, label: str, sessions: Iterable[Session], outputs: Sequence[str]) -> None:
        """Make the runs in every session.

        Raises:
            LoadError: a sample's run failed.
        """
        for session in {id(session): session for session in sessions}.values():
            for name, feeds, count in self._samples:
                for _ in range(count):
                    try:
                        session.run(feeds, outputs)
                    except MeshError as error:
                        raise LoadError(f"Model {label}: model_warmup {name!r}: {error}") from error
            if not self._samples and self._zeros is not None:
                try:
                    session.run(self._zeros, outputs)
                except MeshError as error:
                    _LOG.info("model %s was not warmed up, as it does not run on zeros: %s", label, error)


def zeros(inputs: Sequence[TensorSpec], items: int) -> Feeds | None:
    """Return a batch of zeros; None when a size other than the batch is open, a text is wanted, or it is huge."""
    needed = [spec for spec in inputs if not spec.optional]
    if any(spec.datatype == "BYTES" or -1 in spec.shape[1:] for spec in needed):
        return None
    shapes = {spec.name: [size if size >= 0 else items for size in spec.shape] for spec in needed}
    kinds = {spec.name: DTYPES[spec.datatype] for spec in needed}
    # What a configuration says may be far from what a request ever holds.
    if sum(math.prod(shape) * kinds[name].itemsize for name, shape in shapes.items()) > _LARGEST_BYTES:
        return None
    return {name: np.zeros(shape, kinds[name]) for name, shape in shapes.items()}


def _fed(fed: Iterable[TensorSpec], items: int) -> Feeds:
    return {
        spec.name: _filled(
            tuple((items if axis == 0 else 1) if size < 0 else size for axis, size in enumerate(spec.shape)),
            spec.datatype,
            random=False,
        )
        for spec in fed
    }


def samples(directory: Path, config: pb.ModelConfig, inputs: Sequence[TensorSpec]) -> list[tuple[str, Feeds, int]]:
    """Return the samples of ``model_warmup``: name, inputs and how often each is run.

    Raises:
        LoadError: a sample does not fit the model; names its field.
    """
    path = directory / "config.pbtxt"
    if len(config.model_warmup) > _MOST_SAMPLES:
        raise LoadError(f"{path}: model_warmup: {len(config.model_warmup)} samples, at most {_MOST_SAMPLES}.")
    made = []
    for sample in config.model_warmup:
        where = f"{path}: model_warmup {sample.name!r}"
        if sample.count > _MOST_RUNS:
            raise LoadError(f"{where}: count: {sample.count}, at most {_MOST_RUNS}.")
        least, most = (1, config.max_batch_size) if config.max_batch_size else (0, 1)
        if not least <= sample.batch_size <= most:
            raise LoadError(f"{where}: batch_size: {sample.batch_size}, expected {least} to {most}.")
        made.append((sample.name, _feeds(where, directory, sample, config, inputs), sample.count or 1))
    return made


def _feeds(
    where: str, directory: Path, sample: pb.ModelWarmup, config: pb.ModelConfig, inputs: Sequence[TensorSpec]
) -> Feeds:
    known = {spec.name: spec for spec in inputs}
    if unknown := sorted(set(sample.inputs).difference(known)):
        raise LoadError(f"{where}: inputs: the model has no input {', '.join(unknown)}.")
    if missing := sorted(spec.name for spec in inputs if not spec.optional and spec.name not in sample.inputs):
        raise LoadError(f"{where}: inputs: lacks {', '.join(missing)}.")
    batch = (sample.batch_size,) if config.max_batch_size else ()
    return {
        name: _tensor(f"{where}: inputs[{name}]", directory, given, known[name], batch)
        for name, given in sample.inputs.items()
    }


def _tensor(
    where: str, directory: Path, given: pb.ModelWarmup.Input, spec: TensorSpec, batch: tuple[int, ...]
) -> Array:
    kind = _WIRE.get(given.data_type)
    if kind != spec.datatype:
        raise LoadError(f"{where}: data_type: {kind}, the model takes {spec.datatype}.")
    shape = (*batch, *given.dims)
    if not spec.admits(shape) or min(shape, default=1) < 1:
        raise LoadError(f"{where}: dims: {list(given.dims)} make {list(shape)}, the model takes {list(spec.shape)}.")
    if math.prod(shape) * DTYPES[spec.datatype].itemsize > _LARGEST_BYTES:
        raise LoadError(f"{where}: dims: {list(given.dims)} make more than {_LARGEST_BYTES} bytes.")
    match given.WhichOneof("input_data_type"):
        case "zero_data":
            return _filled(shape, spec.datatype, random=False)
        case "random_data":
            return _filled(shape, spec.datatype, random=True)
        case "input_data_file":
            return _from_file(where, directory, given.input_data_file, spec.datatype, shape)
        case _:
            raise LoadError(f"{where}: expected zero_data, random_data or input_data_file.")


def _filled(shape: tuple[int, ...], datatype: str, *, random: bool) -> Array:
    dtype = DTYPES[datatype]
    if dtype.hasobject:
        # Triton has no random texts either.
        return np.full(shape, "", dtype)
    if not random:
        return np.zeros(shape, dtype)
    generator = np.random.default_rng(0)
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "f":
        return generator.random(shape, np.float32).astype(dtype)
    if datatype == "BF16":  # the upper halves of numbers below 1
        return (generator.random(shape, np.float32).view(np.uint32) >> 16).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _from_file(where: str, directory: Path, name: str, datatype: str, shape: tuple[int, ...]) -> Array:
    path = directory / _DIRECTORY / file_beside(f"{where}: input_data_file", name)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise LoadError(f"{path}: has more than {_LARGEST_BYTES} bytes.")
        array = from_raw(datatype, shape, path.read_bytes())
        if not array.dtype.hasobject:
            return array
        texts = np.empty(array.size, DTYPES["BYTES"])
        texts[:] = [element.decode() for element in array.ravel()]
        return texts.reshape(shape)
    except (OSError, ValueError) as error:
        raise LoadError(f"{where}: input_data_file: {path}: {error}") from error
