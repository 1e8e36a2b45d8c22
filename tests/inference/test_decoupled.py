"""A decoupled model answers a request any number of times, marks the end as Triton does, and a slow reader holds it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import serving
from mediamesh.wire.errors import MeshError, NotImplementedByServer
from tests.inference import models
from tests.inference.conftest import inference_server
from tests.inference.repeat import add_repeat, repeat_backend

ASKS_FOR_END = "triton_enable_empty_final_response"


@pytest.fixture(scope="session")
async def server(tmp_path_factory):
    """The repeater, and a channel to its server."""
    repository = tmp_path_factory.mktemp("decoupled")
    add_repeat(repository)
    models.add_model(repository, "double", models.double(), "max_batch_size: 8")
    with repeat_backend() as loaded:
        async with (
            inference_server(repository, stream_requests=64, stream_bytes=1 << 20) as port,
            connect(f"127.0.0.1:{port}") as channel,
        ):
            yield loaded[0], channel


@pytest.fixture
def stub(server) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(server[1])


def request(times: int, key: str = "1", *, size: int = 1, ask: bool = False) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="repeat", id=key)
    made.inputs.add(name="x", datatype="FP32", shape=[size])
    made.inputs.add(name="times", datatype="INT32", shape=[1])
    made.raw_input_contents.extend([np.zeros(size, np.float32).tobytes(), np.array([times], np.int32).tobytes()])
    if ask:
        made.parameters[ASKS_FOR_END].bool_param = True
    return made


async def _each(*requests):
    for request in requests:
        yield request


async def answers(stub, *requests) -> list[pb.ModelStreamInferResponse]:
    async with asyncio.timeout(30):
        return [answer async for answer in stub.ModelStreamInfer(_each(*requests))]


def final(answer: pb.ModelStreamInferResponse) -> bool:
    return answer.infer_response.parameters["triton_final_response"].bool_param


def index(answer: pb.ModelStreamInferResponse) -> int:
    return int(np.frombuffer(answer.infer_response.raw_output_contents[1], np.int32)[0])


@pytest.mark.parametrize("times", [0, 1, 5])
async def test_as_many_answers_come_as_the_model_gives_and_none_says_that_it_is_the_last(stub, times) -> None:
    got = await answers(stub, request(times))
    assert [index(answer) for answer in got] == list(range(times))
    assert not any(final(answer) for answer in got)


@pytest.mark.parametrize("times", [0, 1, 5])
async def test_who_asks_for_it_gets_an_empty_answer_at_the_end(stub, times) -> None:
    *got, last = await answers(stub, request(times, "seven", ask=True))
    assert [index(answer) for answer in got] == list(range(times))
    assert [final(answer) for answer in got] == [False] * times
    assert final(last)
    assert (last.infer_response.id, last.infer_response.model_name) == ("seven", "repeat")
    assert not last.infer_response.outputs


async def test_a_request_that_fails_half_way_ends_with_its_error(stub) -> None:
    *got, last = await answers(stub, request(-2, ask=True), request(0))
    assert [index(answer) for answer in got] == [0, 1]
    assert "failed after 2 answers" in last.error_message
    assert final(last)


async def test_many_requests_are_answered_side_by_side_each_in_its_order(stub) -> None:
    got = await answers(stub, *(request(20, str(number), ask=True) for number in range(50)))
    by_id: dict[str, list[int]] = {}
    for answer in got:
        if not final(answer):
            by_id.setdefault(answer.infer_response.id, []).append(index(answer))
    assert by_id == {str(number): list(range(20)) for number in range(50)}
    assert sum(final(answer) for answer in got) == 50


async def test_a_bad_request_is_answered_once(stub) -> None:
    bad = request(1)
    bad.parameters[ASKS_FOR_END].string_param = "yes"
    short = request(1, "short")
    short.raw_input_contents.pop()
    got = await answers(stub, bad, short)
    assert sorted(answer.error_message.partition(":")[0] for answer in got) == [
        f"parameters[{ASKS_FOR_END}]",
        "raw_input_contents",
    ]
    assert all(final(answer) for answer in got)


async def test_the_unary_call_is_refused(stub) -> None:
    with pytest.raises(NotImplementedByServer, match="repeat is decoupled"):
        await stub.ModelInfer(request(1))


async def test_a_model_with_one_answer_ignores_the_wish_for_an_empty_one(stub) -> None:
    plain = pb.ModelInferRequest(model_name="double", id="plain", raw_input_contents=[b"\0" * 8])
    plain.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    plain.parameters[ASKS_FOR_END].bool_param = True
    (answer,) = await answers(stub, plain)
    assert final(answer)
    assert answer.infer_response.outputs


@pytest.mark.parametrize("times", [0, 3])
async def test_our_own_client_knows_the_end(server, times) -> None:
    inputs = {"x": np.ones(2, np.float32), "times": np.array([times], np.int32)}
    async with InferenceClient(server[1]) as client:
        assert [int(answer["index"][0]) async for answer in client.stream("repeat", inputs)] == list(range(times))
        with pytest.raises(MeshError, match="failed after 1 answers"):
            async for _ in client.stream("repeat", {**inputs, "times": np.array([-1], np.int32)}):
                pass


async def test_a_slow_reader_holds_the_model_and_leaving_stops_it(server, stub) -> None:
    repeater = server[0]
    made, begun, cancelled = repeater.made, repeater.begun, repeater.cancelled
    call = stub.ModelStreamInfer(_each(*(request(10**6, str(n), size=16_384) for n in range(8))))
    for _ in range(20):
        await call.read()
    # Nothing is read now: what the transport holds fills, then the model stands still.
    before = -1
    async with asyncio.timeout(20):
        while before != repeater.made:
            before = repeater.made
            await asyncio.sleep(0.2)
    # 64 KB each: 1 MB for the stream, one for each request, and a few MB in the transport.
    assert repeater.made - made < 400
    assert repeater.running
    call.cancel()
    async with asyncio.timeout(20):
        while repeater.running:
            repeater.changed.clear()
            await repeater.changed.wait()
    # One more may have begun meanwhile; none has come to its end.
    assert repeater.cancelled - cancelled == repeater.begun - begun


async def test_a_server_that_stops_finishes_what_it_has_begun(tmp_path) -> None:
    add_repeat(tmp_path)
    settings = Settings(model_repository=tmp_path, grace_seconds=20)
    with repeat_backend() as loaded:
        async with app(settings) as part, serving(settings, part) as port, connect(f"127.0.0.1:{port}") as channel:
            call = GRPCInferenceServiceStub(channel).ModelStreamInfer(_without_end(request(300, ask=True)))
            await call.read()
            assert part.drain is not None
            await part.drain()
            assert await _count(call) == 300
        assert loaded[0].cancelled == 0


async def _without_end(request):
    yield request
    await asyncio.Event().wait()


async def _count(call) -> int:
    """Return how many answers come, the last being the final one."""
    got = []
    try:
        async for answer in call:
            got.append(answer)
    except MeshError:
        pass
    assert final(got[-1])
    return len(got)
