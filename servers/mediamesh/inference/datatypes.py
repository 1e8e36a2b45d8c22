"""One tensor type under its three names: in requests, in config.pbtxt and in onnxruntime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import model_config_pb2 as config_pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BY_ONNX", "MOST_TEXTS", "TO_CONFIG", "TensorSpec", "check_texts"]

# Elements of BYTES are read one by one, for which everybody waits: some 50 ms.
MOST_TEXTS = 65_536

_ONNX = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "BF16": "bfloat16", "FP32": "float",
    "FP64": "double", "BYTES": "string",
}  # fmt: skip
BY_ONNX: Mapping[str, str] = MappingProxyType({f"tensor({onnx})": wire for wire, onnx in _ONNX.items()})
TO_CONFIG: Mapping[str, config_pb.DataType.ValueType] = MappingProxyType(
    {wire: config_pb.DataType.Value("TYPE_STRING" if wire == "BYTES" else f"TYPE_{wire}") for wire in _ONNX}
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says about one of its tensors.

    Attributes:
        name: Its name.
        datatype: Element type in the protocol's spelling.
        shape: Size of each dimension, the batch dimension included; -1 is variable.
        optional: A request may leave it out: the model has a value for it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a tensor of this shape fits."""
        if len(shape) != len(self.shape):
            return False
        return all(given == own or own < 0 for given, own in zip(shape, self.shape, strict=True))


def check_texts(datatype: str, shape: Sequence[int], most: int) -> None:
    """Refuse a tensor of more BYTES elements than are read of one.

    Raises:
        ValueError: it has more.
    """
    if datatype == "BYTES" and (count := math.prod(shape)) > most:
        raise ValueError(f"has {count} BYTES elements, {most} at most are read (MEDIAMESH_INFERENCE_BYTES_ELEMENTS)")
