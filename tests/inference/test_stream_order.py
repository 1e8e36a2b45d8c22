"""On a stream answers come in the order of their requests, which Triton's clients expect, or in the one asked for."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.wire.errors import InvalidRequest
from tests.inference import models
from tests.inference.conftest import inference_server

ONE_WORKER = "max_batch_size: 8 dynamic_batching {} instance_group { count: 1 kind: KIND_CPU }"
HEADER = "mediamesh-answer-order"


@pytest.fixture(scope="session")
async def channel(tmp_path_factory):
    """A channel to a server of two models of one worker each, whose runs leave the event loop."""
    repository = tmp_path_factory.mktemp("ordered")
    for name in ("double", "other"):
        models.add_model(repository, name, models.double(), ONE_WORKER)
    async with inference_server(repository, measure_seconds=0) as port, connect(f"127.0.0.1:{port}") as channel:
        yield channel


def request(key: str, model: str = "double", width: int = 2) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model, id=key)
    made.inputs.add(name="x", datatype="FP32", shape=[1, width])
    made.raw_input_contents.append(np.ones((1, width), np.float32).tobytes())
    return made


async def order_of_answers(channel, gate, metadata, *requests) -> list[str]:
    """Send requests, of which the first is held until as many others as can be are answered; return ids as answered."""
    stub, got = GRPCInferenceServiceStub(channel), []
    gate.shut()
    call = stub.ModelStreamInfer(_each(requests), metadata=metadata)
    await gate.entered()
    async with asyncio.timeout(20):
        if dict(metadata).get(HEADER) in {"ready", "model"}:
            got.append(await id_of_next(call))
        gate.open()
        async for answer in call:
            got.append(answer.infer_response.id)
    return got


async def id_of_next(call) -> str:
    answer = await call.read()
    assert isinstance(answer, pb.ModelStreamInferResponse)
    return answer.infer_response.id


async def _each(requests):
    for request in requests:
        yield request


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), ["held", "bad", "other", "last"]),
        (((HEADER, "request"),), ["held", "bad", "other", "last"]),
        (((HEADER, "model"),), ["other", "held", "bad", "last"]),
    ],
    ids=["nothing is asked for", "by request", "by model"],
)
async def test_answers_come_in_the_order_that_was_asked_for(channel, gate, asked, expected) -> None:
    requests = [request("held"), request("bad", width=3), request("other", "other", width=3), request("last")]
    assert await order_of_answers(channel, gate, asked, *requests) == expected


async def test_answers_come_as_they_are_ready_where_that_was_asked_for(channel, gate) -> None:
    requests = [request("held"), request("bad", width=3), request("last")]
    got = await order_of_answers(channel, gate, ((HEADER, "ready"),), *requests)
    assert got[0] == "bad"
    assert sorted(got) == ["bad", "held", "last"]


async def test_an_order_that_there_is_none_is_refused(channel) -> None:
    with pytest.raises(InvalidRequest, match="is 'random', expected one of request, model, ready"):
        async for _ in GRPCInferenceServiceStub(channel).ModelStreamInfer(_each([]), metadata=((HEADER, "random"),)):
            pass


async def test_an_error_ends_the_stream_with_its_status_where_that_was_asked_for(channel) -> None:
    requests = [request("good"), request("bad", width=3), request("never")]
    call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
        _each(requests), metadata=(("triton_grpc_error", "true"),)
    )
    assert await id_of_next(call) == "good"
    with pytest.raises(InvalidRequest, match=r"expected \[-1, 2\]"):
        async for _ in call:
            pass


async def test_garbage_between_requests_is_answered_and_the_stream_goes_on(channel) -> None:
    good = request("good").SerializeToString()
    sent = [good, b"\xff" * 9, b"", good[:-3], good, b"\x00" * 100_000, good]
    call = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )(_each(sent))
    async with asyncio.timeout(20):
        answers = [(answer.infer_response.id, answer.error_message) async for answer in call]
    assert [key for key, _ in answers] == ["good", "", "", "", "good", "", "good"]
    assert [bool(error) for _, error in answers] == [False, True, True, True, False, True, False]


@pytest.mark.parametrize("field", ["model_name", "model_version", "id"])
async def test_a_small_request_is_held_to_the_rules_too(channel, field) -> None:
    long = request("good")
    setattr(long, field, "é" * (65 if field == "model_version" else 1025))
    long.inputs[0].shape.extend([1] * 20)
    async for answer in GRPCInferenceServiceStub(channel).ModelStreamInfer(_each([long])):
        assert f"{field}: " in answer.error_message
        assert "inputs[0].shape: " in answer.error_message
