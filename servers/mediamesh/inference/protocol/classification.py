"""Triton's classification extension: the best classes of an output as texts ``VALUE:INDEX[:LABEL]``, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError
from mediamesh.wire.tensors import bf16_to_fp32

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb

    Array = np.ndarray[Any, Any]

__all__ = ["best_classes", "read_labels"]

_MOST_LABEL_BYTES = 64 << 20


def read_labels(directory: Path, config: config_pb.ModelConfig) -> Mapping[str, Sequence[str]]:
    """Return the names of the classes of each output that has a ``label_filename``: one a line, in the order of index.

    Args:
        directory: The model's directory, beside whose config.pbtxt the files lie.
        config: Its configuration.

    Raises:
        LoadError: a file is not there, not in the directory, or no text.
    """
    return {output.name: _lines(directory, output) for output in config.output if output.label_filename}


def best_classes(array: Array, datatype: str, most: int, labels: Sequence[str], *, batched: bool) -> Array:
    """Return the classes with the highest values.

    Args:
        array: An output, with the batch in front where there is one.
        datatype: Its type in the protocol's spelling.
        most: How many classes to give; fewer where there are not so many.
        labels: Names of the classes by index; may be short.
        batched: Whether the first dimension is the batch.

    Returns:
        BYTES of shape [batch, classes], or [classes]; of equal values the lower index comes first, NaN comes last.

    Raises:
        ValueError: the output has no values that can be compared.
    """
    if array.dtype.hasobject or datatype == "BOOL":
        raise ValueError(f"is {datatype}, expected numbers to classify")
    items = array.shape[0] if batched else 1
    values = (bf16_to_fp32(array) if datatype == "BF16" else array).reshape(items, -1 if array.size else 0)
    most = min(most, values.shape[1])
    best = _ranked(values)[:, :most]
    texts = np.empty((items, most), np.object_)
    for item, row in enumerate(best):
        texts[item] = [_spelled(values[item, index], int(index), labels) for index in row]
    return texts if batched else texts[0]


def _ranked(values: Array) -> Array:
    """Return the indices of each row by falling value."""
    if values.dtype.kind == "f":
        # A stable sort puts NaN last, and of equals the first first.
        return np.argsort(-values.astype(np.float64), axis=1, kind="stable")
    # ``~`` turns the order of integers round where ``-`` would overflow.
    return np.argsort(~values, axis=1, kind="stable")


def _spelled(value: Any, index: int, labels: Sequence[str]) -> bytes:
    # As C++'s std::to_string, which Triton uses: six decimals.
    text = f"{float(value):f}" if value.dtype.kind == "f" else str(int(value))
    label = labels[index] if index < len(labels) else ""
    return (f"{text}:{index}:{label}" if label else f"{text}:{index}").encode()


def _lines(directory: Path, output: config_pb.ModelOutput) -> tuple[str, ...]:
    where = f"{directory / CONFIG_FILE}: output {output.name!r}: label_filename: {output.label_filename!r}"
    file = directory / output.label_filename
    if not file.resolve().is_relative_to(directory.resolve()):
        raise LoadError(f"{where} lies outside of the model's directory.")
    try:
        if file.stat().st_size > _MOST_LABEL_BYTES:
            raise LoadError(f"{where} has more than {_MOST_LABEL_BYTES} bytes.")
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{where} cannot be read: {error}") from error
