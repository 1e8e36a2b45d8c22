"""Models with state for tests, and requests of sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from tests.inference import models

ONE_INSTANCE = "instance_group { count: 1 kind: KIND_CPU }"
CONTROLS = """
control_input { name: "START" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ] } }
control_input { name: "END" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } }
control_input { name: "READY" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } }
control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
"""
STATE = 'state { input_name: "state" output_name: "state_next" data_type: TYPE_FP32 dims: [ 1 ] }'
FROM_FILE = """
state {
  input_name: "state" output_name: "state_next" data_type: TYPE_FP32 dims: [ 1 ]
  initial_state { name: "hundred" data_type: TYPE_FP32 dims: [ 1 ] data_file: "hundred" }
}
"""


def accumulator() -> bytes:
    """Return a model that adds up its input ``x`` from START on, and tells its signals: [N, 1] each."""
    nodes = [
        helper.make_node("Where", ["START", "zero", "state"], ["before"]),
        helper.make_node("Add", ["before", "x"], ["added"]),
        helper.make_node("Mul", ["added", "READY"], ["y"]),
        helper.make_node("Identity", ["y"], ["state_next"]),
        helper.make_node("Identity", ["ID"], ["id"]),
        helper.make_node("Identity", ["END"], ["end"]),
    ]
    one = ["N", 1]
    inputs = {
        "x": ("FP32", one),
        "START": ("BOOL", one),
        "END": ("INT32", one),
        "READY": ("FP32", one),
        "ID": ("UINT64", one),
        "state": ("FP32", one),
    }
    outputs = {"y": ("FP32", one), "id": ("UINT64", one), "end": ("INT32", one), "state_next": ("FP32", one)}
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    return models.onnx_bytes(nodes, inputs, outputs, [zero])


def total(shape: tuple[int | str, ...] = ("N", 1)) -> bytes:
    """Return a model that adds up its input, with no signals: ``y`` is ``x`` plus the state, and the next state."""
    nodes = [helper.make_node("Add", ["x", "state"], ["y"]), helper.make_node("Identity", ["y"], ["state_next"])]
    ends = ("FP32", list(shape))
    return models.onnx_bytes(nodes, {"x": ends, "state": ends}, {"y": ends, "state_next": ends})


def text_id() -> bytes:
    """Return a model that gives back the identifier of the sequence, a text: [N, 1]."""
    nodes = [helper.make_node("Identity", ["ID"], ["id"]), helper.make_node("Identity", ["x"], ["y"])]
    one = ["N", 1]
    inputs = {"x": ("FP32", one), "ID": ("BYTES", one)}
    return models.onnx_bytes(nodes, inputs, {"id": ("BYTES", one), "y": ("FP32", one)})


def history() -> bytes:
    """Return a model without batches that gives back all that its sequence sent: [any]."""
    nodes = [
        helper.make_node("Concat", ["state", "x"], ["y"], axis=0),
        helper.make_node("Identity", ["y"], ["state_next"]),
    ]
    ends = {"x": ("FP32", ["A"]), "state": ("FP32", ["B"])}
    return models.onnx_bytes(nodes, ends, {"y": ("FP32", ["C"]), "state_next": ("FP32", ["C"])})


def add_sequence_model(
    repository: Path,
    name: str,
    model: bytes,
    batching: str,
    *,
    most: int = 8,
    idle: float = 60,
    more: str = ONE_INSTANCE,
) -> Path:
    """Write a model with state into a repository and return its directory; ``idle`` is in seconds."""
    config = (
        f"max_batch_size: {most} {more} "
        f"sequence_batching {{ max_sequence_idle_microseconds: {round(idle * 1e6)} {batching} }}"
    )
    return models.add_model(repository, name, model, config)


def request(
    model: str,
    value: float,
    key: int | str | None,
    *,
    start: bool = False,
    end: bool = False,
    timeout: float = 0,
    outputs: tuple[str, ...] = (),
    shape: tuple[int, ...] = (1, 1),
) -> pb.ModelInferRequest:
    """Return a request of a sequence; its id is ``KEY:VALUE``."""
    made = pb.ModelInferRequest(model_name=model, id=f"{key}:{value:g}")
    made.inputs.add(name="x", datatype="FP32", shape=shape)
    made.raw_input_contents.append(np.full(shape, value, np.float32).tobytes())
    for name in outputs:
        made.outputs.add(name=name)
    if isinstance(key, str):
        made.parameters["sequence_id"].string_param = key
    elif key is not None:
        made.parameters["sequence_id"].uint64_param = key
    for name, flag in (("sequence_start", start), ("sequence_end", end)):
        if flag:
            made.parameters[name].bool_param = True
    if timeout:
        made.parameters["timeout"].int64_param = round(timeout * 1e6)
    return made


def tensor(response: pb.ModelInferResponse, name: str, dtype: type = np.float32) -> np.ndarray:
    """Return an output of a response."""
    names = [output.name for output in response.outputs]
    index = names.index(name)
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(response.outputs[index].shape)
