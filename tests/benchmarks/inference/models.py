"""What the benchmarks of inference run: the picture nets that ship, and a tiny one that shows what a server adds."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.infer_request import join

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

__all__ = ["MLP", "VENDORED", "add_mlp", "add_vendored", "input_of", "request"]

VENDORED = Path(__file__).resolve().parents[3] / "deploy" / "models" / "repository"
MLP = "mlp"
_MLP_WIDTHS = (784, 256, 10)
_PICTURE = (1, 3, 224, 224)


def input_of(model: str) -> Array:
    """Return what a model is fed, float32: [1, 784] for the tiny one, [1, 3, 224, 224] for all others."""
    shape = (1, _MLP_WIDTHS[0]) if model == MLP else _PICTURE
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def request(model: str, number: int = 0) -> bytes:
    """Return a serialised ModelInferRequest whose id is its number."""
    tensor = input_of(model)
    message = pb.ModelInferRequest(model_name=model, id=str(number))
    message.inputs.add(name="input", datatype="FP32", shape=tensor.shape)
    return join(message, [tensor.tobytes()])


def add_mlp(repository: Path) -> None:
    """Write the tiny model, 784 -> 256 -> 10, without a configuration: as a newcomer would."""
    rng = np.random.default_rng(7)
    nodes, constants, last = [], [], "input"
    for number, (inner, outer) in enumerate(pairwise(_MLP_WIDTHS)):
        weights = {f"w{number}": rng.standard_normal((inner, outer)) / 28, f"b{number}": rng.standard_normal(outer)}
        constants += [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
        nodes.append(helper.make_node("Gemm", [last, *weights], [f"h{number}"]))
        last = f"h{number}"
        if outer != _MLP_WIDTHS[-1]:
            nodes.append(helper.make_node("Relu", [last], [last := f"r{number}"]))
    nodes[-1].output[0] = "logits"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name, width in (("input", _MLP_WIDTHS[0]), ("logits", _MLP_WIDTHS[-1]))
    ]
    graph = helper.make_graph(nodes, MLP, ends[:1], ends[1:], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    directory = repository / MLP / "1"
    directory.mkdir(parents=True)
    onnx.save(model, directory / "model.onnx")


def add_vendored(repository: Path, model: str) -> None:
    """Copy a model that ships."""
    shutil.copytree(VENDORED / model, repository / model)
