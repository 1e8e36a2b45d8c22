"""A request that cannot be served is refused with a sentence that names what is wrong; server and stream go on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client.inference import InferenceClient
from mediamesh.wire.errors import InvalidRequest, MeshError, NotFound

ONES = np.ones((1, 2), np.float32)


@pytest.fixture(params=["infer", "infer_alone"])
def infer(client, request):
    return getattr(client, request.param)


@pytest.mark.parametrize(
    ("inputs", "field", "sentence"),
    [
        ({"x": np.ones((1, 3), np.float32)}, "inputs[0].shape", r"input 'x' has shape \[1, 3\], expected \[-1, 2\]"),
        ({"x": np.ones(2, np.float32)}, "inputs[0].shape", r"input 'x' has shape \[2\], expected \[-1, 2\]"),
        ({"x": np.ones((1, 2))}, "inputs[0].datatype", "input 'x' is 'FP64', expected FP32"),
        ({"z": ONES}, "inputs[0].name", "has no input 'z'; it takes 'x'"),
        ({}, "inputs", "lacks input 'x'"),
        ({"x": np.ones((0, 2), np.float32)}, "inputs", "the batch has 0 items, expected 1 to 8"),
        ({"x": np.ones((9, 2), np.float32)}, "inputs", "the batch has 9 items, expected 1 to 8"),
    ],
)
async def test_a_tensor_that_does_not_fit_is_named_with_what_was_expected(infer, inputs, field, sentence) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as raised:
        await infer("double", inputs)
    assert [name for name, _ in raised.value.violations] == [field]
    assert "double/1" in str(raised.value)
    assert (await infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_an_unknown_model_version_or_output_is_named_with_those_there_are(infer) -> None:
    with pytest.raises(NotFound, match=r"no model 'nobody'; loaded are: double/1, "):
        await infer("nobody", {"x": ONES})
    with pytest.raises(NotFound, match="no model 'double' version '7'"):
        await infer("double", {"x": ONES}, version="7")
    with pytest.raises(NotFound, match="version 'first'"):
        await infer("double", {"x": ONES}, version="first")
    with pytest.raises(InvalidRequest, match="has no output 'z'; it gives 'y'"):
        await infer("double", {"x": ONES}, outputs=["z"])


async def test_inputs_that_differ_in_batch_size_are_refused(infer) -> None:
    with pytest.raises(InvalidRequest, match="the first dimensions differ"):
        await infer("pair", {"a": ONES, "b": np.ones((2, 2), np.float32)})


async def test_one_bad_request_of_a_batch_fails_alone(client, gate) -> None:
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_outcome(client.infer("pick", {"index": np.array([index])}))) for index in (0, 1, 99, 2)
        ]
        await gate.entered()
        gate.open()
    outcomes = [task.result() for task in asked]
    assert [outcome["picked"].tolist() for outcome in outcomes if isinstance(outcome, dict)] == [[10], [11], [12]]
    assert isinstance(outcomes[2], MeshError)
    assert "pick/1" in str(outcomes[2])


async def _outcome(answer):
    try:
        return await answer
    except MeshError as error:
        return error


def _request(**changes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", id="1")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.MergeFrom(pb.ModelInferRequest(**changes))
    return request


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"\x00" * 7, "holds 7 bytes, expected 8"),
        (b"", "holds 0 bytes, expected 8"),
        (b"\x00" * 1_000_001, "holds 1000001 bytes, expected 8"),
    ],
)
async def test_raw_contents_of_the_wrong_length_are_refused(tiny, raw, sentence) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        await GRPCInferenceServiceStub(tiny).ModelInfer(_request(raw_input_contents=[raw]))


async def test_a_shape_that_claims_more_than_any_memory_is_refused(tiny) -> None:
    request = pb.ModelInferRequest(model_name="identity_FP32", raw_input_contents=[b"\x00" * 8])
    request.inputs.add(name="x", datatype="FP32", shape=[2**62, 2**62])
    with pytest.raises(InvalidRequest, match="holds 8 bytes"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)
    request.model_name, request.inputs[0].datatype = "identity_BYTES", "BYTES"
    with pytest.raises(InvalidRequest, match="65536 at most"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)
    request.inputs[0].ClearField("shape")
    request.inputs[0].shape.extend([1, 3])
    with pytest.raises(InvalidRequest, match="too few"):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)


async def test_more_texts_than_are_read_are_refused_wherever_they_lie(tiny) -> None:
    raw = pb.ModelInferRequest(model_name="identity_BYTES", raw_input_contents=[bytes(4 * 65_537)])
    listed, shared = (
        pb.ModelInferRequest(model_name="identity_BYTES"),
        pb.ModelInferRequest(model_name="identity_BYTES"),
    )
    for request in (raw, listed, shared):
        request.inputs.add(name="x", datatype="BYTES", shape=[1, 65_537])
    listed.inputs[0].contents.bytes_contents.extend([b""] * 65_537)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    for request in (raw, listed, shared):
        with pytest.raises(InvalidRequest, match="has 65537 BYTES elements, 65536 at most") as raised:
            await GRPCInferenceServiceStub(tiny).ModelInfer(request)
        assert [name for name, _ in raised.value.violations] == ["inputs[0].shape"]


@pytest.mark.parametrize(
    ("kind", "raw", "sentence"),
    [
        ("BOOL", b"\x01\x02", "neither 0 nor 1"),
        ("BYTES", b"\x01\0\0\0a\xff\xff\xff\xff", "ends within BYTES element 1"),
        ("BYTES", b"\x01\0\0\0a\x01\0\0\0\xff", "not UTF-8"),
        ("BYTES", b"\0\0\0\0\0\0\0\0\0\0\0\0", "holds more than 2 BYTES elements, 4 bytes of them"),
    ],
)
async def test_garbage_in_raw_contents_is_refused(tiny, kind, raw, sentence) -> None:
    request = pb.ModelInferRequest(model_name=f"identity_{kind}", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=kind, shape=[1, 2])
    with pytest.raises(InvalidRequest, match=sentence):
        await GRPCInferenceServiceStub(tiny).ModelInfer(request)


async def test_a_message_that_breaks_a_rule_or_is_none_fails_alone_on_a_stream(tiny) -> None:
    async def requests():
        yield b"\xff garbage"
        yield _request(model_version="1" * 65, raw_input_contents=[ONES.tobytes()]).SerializeToString()
        yield _request(raw_input_contents=[ONES.tobytes()]).SerializeToString()

    call = tiny.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    answers = [answer async for answer in call(requests())]
    errors = {answer.infer_response.id: answer.error_message for answer in answers if answer.error_message}
    assert "is no ModelInferRequest" in errors[""]
    assert "model_version" in errors["1"]
    assert len([answer for answer in answers if not answer.error_message]) == 1


async def test_a_message_above_the_limit_is_refused_and_the_next_call_works(tiny) -> None:
    async with InferenceClient(tiny) as client:
        with pytest.raises(MeshError):
            await client.infer("identity_FP32", {"x": np.zeros((1, 20 << 20), np.float32)})
        assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]
