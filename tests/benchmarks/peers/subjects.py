"""The models that peers are compared on, and the same request for each in the two forms in which peers take it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.infer_request import join

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Subject", "subjects"]

ROOT = Path(__file__).resolve().parents[3]
PICTURE = (3, 224, 224)


@dataclass(frozen=True)
class Subject:
    """A model and a request to it.

    Attributes:
        file: The ONNX file.
        input: Name of its input.
        output: Name of its output.
        shape: Shape of an item of the input.
        item: The item that is sent, a batch of one.
        expected: What onnxruntime answers.
        config: config.pbtxt for servers that read one.
    """

    name: str
    file: Path
    input: str
    output: str
    shape: tuple[int, ...]
    item: np.ndarray[Any, Any]
    expected: np.ndarray[Any, Any]
    config: str

    @property
    def grpc_body(self) -> bytes:
        """A ModelInferRequest."""
        message = pb.ModelInferRequest(model_name=self.name)
        message.inputs.add(name=self.input, datatype="FP32", shape=self.item.shape)
        return join(message, [self.item.tobytes()])

    def is_right(self, output: np.ndarray[Any, Any]) -> bool:
        """Tell whether an answer is this model's."""
        expected = self.expected.ravel()
        return output.size == expected.size and np.allclose(output.ravel(), expected, atol=1e-2, rtol=1e-2)


def subjects(folder: Path) -> Iterator[Subject]:
    """Yield the models; one that has to be pulled first is left out with a sentence.

    Args:
        folder: Where models that are made here go.
    """
    batching = "max_batch_size: 16 dynamic_batching {}"
    yield _subject("mlp", _mlp(folder / "mlp.onnx"), batching)
    int8 = ROOT / "deploy" / "models" / "repository" / "efficientnet_lite0_int8"
    yield _subject(int8.name, int8 / "1" / "model.onnx", (int8 / "config.pbtxt").read_text())
    fp32 = (
        Path.home() / ".cache" / "mediamesh" / "models" / "sets" / "vision" / "efficientnet_lite0" / "1" / "model.onnx"
    )
    if fp32.exists():
        config = ROOT / "deploy" / "models" / "sets" / "vision" / "efficientnet_lite0" / "config.pbtxt"
        yield _subject("efficientnet_lite0", fp32, config.read_text())
    else:
        sys.stderr.write("efficientnet_lite0 is left out: `mediamesh models pull efficientnet_lite0` brings it.\n")


def _pulled(model: str) -> Path | None:
    """Return the file of a model of the store; None where it was not pulled."""
    command = [str(Path(sys.executable).with_name("mediamesh")), "models", "path", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    file = Path(done.stdout.strip()) / "model.onnx"
    return file if done.returncode == 0 and file.exists() else None


def _subject(name: str, file: Path, config: str) -> Subject:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    shape = PICTURE if len(given.shape) == 4 else tuple(given.shape[1:])
    item = np.random.default_rng(7).standard_normal((1, *shape)).astype(np.float32)
    expected = np.asarray(session.run(None, {given.name: item})[0])
    return Subject(name, file.resolve(), given.name, taken.name, shape, item, expected, config)


def _mlp(path: Path) -> Path:
    """Write a network of 784, 256 and 10 neurons, which takes microseconds: what remains is the server."""
    random = np.random.default_rng(0)
    sizes = {"w1": (784, 256), "b1": (256,), "w2": (256, 10), "b2": (10,)}
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) * 0.05).astype(np.float32), name)
        for name, shape in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["input", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["positive"]),
        helper.make_node("Gemm", ["positive", "w2", "b2"], ["output"]),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 784])
    taken = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "mlp", [given], [taken], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
