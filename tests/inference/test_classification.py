"""An output comes as its best classes where a request asks for them, in Triton's spelling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.protocol.classification import best_classes, read_labels
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.tensors import from_raw


def asking(model: str, array: np.ndarray, classes: Any, datatype: str = "FP32") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    request.inputs.add(name="x", datatype=datatype, shape=array.shape)
    request.outputs.add(name="y").parameters["classification"].MergeFrom(classes)
    return request


def texts(answer: pb.ModelInferResponse) -> Any:
    output = answer.outputs[0]
    assert output.datatype == "BYTES"
    return from_raw("BYTES", output.shape, answer.raw_output_contents[0]).tolist()


async def test_each_item_of_a_batch_gets_its_best_classes_with_their_names(tiny) -> None:
    rows = np.array([[0.25, 0.5, 4], [3, 2, 1]], np.float32)
    request = asking("labelled", rows, pb.InferParameter(int64_param=2))
    answer = await GRPCInferenceServiceStub(tiny).ModelInfer(request)
    assert texts(answer) == [[b"8.000000:2", b"1.000000:1:bee"], [b"6.000000:0:ant", b"4.000000:1:bee"]]


async def test_more_classes_than_there_are_give_all_and_a_model_without_a_batch_one_list(tiny) -> None:
    request = asking("identity_INT64", np.array([[-3, 7]]), pb.InferParameter(int64_param=9), "INT64")
    assert texts(await GRPCInferenceServiceStub(tiny).ModelInfer(request)) == [b"7:1", b"-3:0"]


async def test_no_classes_asked_for_leaves_the_output_as_it_is(tiny) -> None:
    request = asking("labelled", np.ones((1, 3), np.float32), pb.InferParameter(int64_param=0))
    assert (await GRPCInferenceServiceStub(tiny).ModelInfer(request)).outputs[0].datatype == "FP32"


@pytest.mark.parametrize("given", [{"int64_param": -1}, {"string_param": "3"}, {}], ids=str)
async def test_a_number_of_classes_that_is_none_is_refused(tiny, given) -> None:
    parameter = pb.InferParameter(**given)
    with pytest.raises(InvalidRequest, match="classification needs a number of classes"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(asking("labelled", np.ones((1, 3), np.float32), parameter))


@pytest.mark.parametrize(("kind", "raw"), [("BYTES", b"\0\0\0\0"), ("BOOL", b"\1")])
async def test_what_has_no_order_cannot_be_classified(tiny, kind, raw) -> None:
    request = pb.ModelInferRequest(model_name=f"identity_{kind}", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=kind, shape=[1, 1])
    request.outputs.add(name="y").parameters["classification"].int64_param = 1
    with pytest.raises(InvalidRequest, match=f"output 'y' is {kind}, expected numbers"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)


async def test_classes_are_not_written_into_shared_memory(tiny) -> None:
    request = asking("labelled", np.ones((1, 3), np.float32), pb.InferParameter(int64_param=1))
    request.outputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InvalidRequest, match="classes cannot be written into shared memory"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        (np.array([1, 2, 2], np.uint8), "UINT8", ["2:1", "2:2", "1:0"]),
        (np.array([-(2**63), 2**63 - 1]), "INT64", ["9223372036854775807:1", "-9223372036854775808:0"]),
        (np.array([0, 2**64 - 1], np.uint64), "UINT64", ["18446744073709551615:1", "0:0"]),
        (np.array([np.nan, 1, np.inf, -np.inf], np.float32), "FP32", ["inf:2", "1.000000:1", "-inf:3", "nan:0"]),
        (np.array([0.5, 1], np.float16), "FP16", ["1.000000:1", "0.500000:0"]),
        (np.array([0x3F80, 0x4000], np.uint16), "BF16", ["2.000000:1", "1.000000:0"]),
        (np.array([], np.float32), "FP32", []),
    ],
)
def test_every_type_of_number_is_ranked(values, datatype, expected) -> None:
    best = best_classes(values, datatype, 10, [], batched=False)
    assert best.tolist() == [text.encode() for text in expected]


def test_names_are_read_beside_the_configuration_and_from_nowhere_else(tmp_path) -> None:
    def config(name: str) -> config_pb.ModelConfig:
        return config_pb.ModelConfig(output=[config_pb.ModelOutput(name="y", label_filename=name)])

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "labels.txt").write_text("a\r\nb\nc d")
    (tmp_path / "secret").write_text("x")
    assert read_labels(tmp_path / "m", config("labels.txt")) == {"y": ("a", "b", "c d")}
    with pytest.raises(LoadError, match=r"output 'y': label_filename: '../secret' lies outside"):
        read_labels(tmp_path / "m", config("../secret"))
    with pytest.raises(LoadError, match="'nothing' cannot be read"):
        read_labels(tmp_path / "m", config("nothing"))
    (tmp_path / "m" / "bad").write_bytes(b"\xff")
    with pytest.raises(LoadError, match="'bad' cannot be read"):
        read_labels(tmp_path / "m", config("bad"))
