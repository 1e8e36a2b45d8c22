"""Tiny ONNX models for tests, written as a repository of Triton's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

VENDORED = Path(__file__).parents[2] / "deploy" / "models" / "repository"

# Doubles three numbers, of which the first two have names.
LABELLED = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [3] }
output { name: "y" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }
"""

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def onnx_bytes(nodes, inputs, outputs, constants=()) -> bytes:
    """Return a model; inputs and outputs map names to a wire type and a shape."""
    takes, gives = (
        [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, (kind, shape) in ends.items()]
        for ends in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "test", takes, gives, initializer=list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def add_model(repository: Path, name: str, model: bytes, config: str | None = None, version: int = 1) -> Path:
    """Write a model into a repository and return its directory."""
    directory = repository / name
    (directory / str(version)).mkdir(parents=True)
    (directory / str(version) / "model.onnx").write_bytes(model)
    if config is not None:
        (directory / "config.pbtxt").write_text(config)
    return directory


def double(kind: str = "FP32", width: int | str = 2) -> bytes:
    """Return a model that adds its input to itself: [N, width]."""
    ends = (kind, ["N", width])
    return onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])], {"x": ends}, {"y": ends})


def times(factor: float) -> bytes:
    """Return a model that multiplies its input: [N, 2]."""
    ends = ("FP32", ["N", 2])
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    return onnx_bytes([helper.make_node("Mul", ["x", "factor"], ["y"])], {"x": ends}, {"y": ends}, [constant])


def optional_factor() -> bytes:
    """Return a model that multiplies its input by ten, or by another factor when one is given: [N, 2]."""
    ends = ("FP32", ["N", 2])
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [1], [10])
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    return onnx_bytes(nodes, {"x": ends, "factor": ("FP32", [1])}, {"y": ends}, [constant])


def fill() -> bytes:
    """Return a model that makes as many ones as it is told and counts them: [1] to a number."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1])
    nodes = [
        helper.make_node("ConstantOfShape", ["count"], ["ones"], value=one),
        helper.make_node("ReduceSum", ["ones"], ["y"], keepdims=0),
    ]
    return onnx_bytes(nodes, {"count": ("INT64", [1])}, {"y": ("FP32", [])})


def weighty(count: int) -> bytes:
    """Return a model with so many weights, of four bytes each, that multiplies by the first of them: [N, 1]."""
    ends = ("FP32", ["N", 1])
    weights = helper.make_tensor(
        "weights", TensorProto.FLOAT, [count], np.full(count, 2, np.float32).tobytes(), raw=True
    )
    first = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    nodes = [
        # Chosen by a number that is computed, or the optimizer would keep one weight and drop the rest.
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["items"]),
        helper.make_node("Gather", ["weights", "items"], ["weight"]),
        helper.make_node("Mul", ["x", "weight"], ["y"]),
    ]
    return onnx_bytes(nodes, {"x": ends}, {"y": ends}, [weights, first])


def identity(kind: str) -> bytes:
    """Return a model that gives back what it takes: [any, any]."""
    ends = (kind, ["A", "B"])
    return onnx_bytes([helper.make_node("Identity", ["x"], ["y"])], {"x": ends}, {"y": ends})


def pick() -> bytes:
    """Return a model that picks rows of a table of three by index, and fails on any other index: [N]."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10.0, 11.0, 12.0])
    nodes = [helper.make_node("Gather", ["table", "index"], ["picked"])]
    return onnx_bytes(nodes, {"index": ("INT64", ["N"])}, {"picked": ("FP32", ["N"])}, [table])


def sum_and_difference() -> bytes:
    """Return a model of two inputs and two outputs: [N, 2] each."""
    ends = ("FP32", ["N", 2])
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return onnx_bytes(nodes, {"a": ends, "b": ends}, {"sum": ends, "difference": ends})
