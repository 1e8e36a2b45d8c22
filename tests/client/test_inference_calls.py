"""What a request says to the server, streams of answers, sequences, and the calls around models."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient, ScoredClass
from mediamesh.client.inference.requests import CANCEL
from mediamesh.wire.errors import DeadlineExceeded, FailedPrecondition, InvalidRequest, MeshError, NotFound, Unavailable
from tests.client.fake_inference import Break, answer, echo, fake_server, refusal
from tests.conformance.making import until


def row(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([values], np.float32)}


@pytest.fixture
async def server():
    async with fake_server() as server:
        yield server


@pytest.fixture
async def client(server):
    async with InferenceClient(server.address) as client:
        yield client


async def collect(answers) -> list[float]:
    return [float(answer["y"][0, 0]) async for answer in answers]


async def test_priority_timeout_outputs_and_parameters_travel(server, client) -> None:
    given = {"flag": True, "count": 3, "share": 0.5, "name": "n"}
    await client.infer("m", row(1), version="2", outputs=["y"], priority=7, timeout=60, parameters=given)
    (asked,) = server.asked
    assert (asked.model_name, asked.model_version, [output.name for output in asked.outputs]) == ("m", "2", ["y"])
    assert asked.parameters["priority"].uint64_param == 7
    assert 0 < asked.parameters["timeout"].int64_param <= 60_000_000
    assert asked.parameters["flag"].bool_param is True
    assert asked.parameters["count"].int64_param == 3
    assert asked.parameters["share"].double_param == 0.5
    assert asked.parameters["name"].string_param == "n"


async def test_an_answer_tells_the_version_that_ran(client) -> None:
    answer = await client.infer("m", row(1))
    assert answer.message.model_version == "1"
    assert answer.message.parameters["triton_final_response"].bool_param


async def test_parameters_that_an_argument_sets_are_refused(client) -> None:
    with pytest.raises(InvalidRequest, match="'timeout'"):
        await client.infer("m", row(1), parameters={"timeout": 3})


async def test_the_best_classes_are_asked_for_and_read(server, client) -> None:
    async def classes(request):
        response = answer(request)
        output = response.infer_response.outputs.add(name="y", datatype="BYTES", shape=[2, 2])
        output.contents.bytes_contents.extend([b"0.9:3:cat: big", b"0.1:1", b"8:0:dog", b"-1.5:4"])
        yield response

    server.behave = classes
    found = await client.classify("m", row(1), "y", best=2)
    assert server.asked[0].outputs[0].parameters["classification"].int64_param == 2
    assert found == [
        [ScoredClass(0.9, 3, "cat: big"), ScoredClass(0.1, 1, "")],
        [ScoredClass(8, 0, "dog"), ScoredClass(-1.5, 4, "")],
    ]


async def test_answers_of_a_decoupled_model_come_as_they_are_made(server, client) -> None:
    go_on = asyncio.Event()

    async def some(request):
        yield answer(request, 1, final=False)
        await go_on.wait()
        yield answer(request, 2, final=False)
        yield answer(request, final=True)

    server.behave = some
    async with aclosing(client.stream("m", row(0))) as answers:
        assert (await anext(answers))["y"] == 1
        go_on.set()
        assert await collect(answers) == [2]
    assert server.asked[0].parameters["triton_enable_empty_final_response"].bool_param


async def test_a_stream_may_end_without_any_answer(server, client) -> None:
    async def none(request):
        yield answer(request, final=True)

    server.behave = none
    assert await collect(client.stream("m", row(0))) == []


async def test_a_server_that_does_not_mark_the_last_answer_ends_with_the_call(server, client) -> None:
    async def unmarked(request):
        yield answer(request, 1, final=None)
        yield answer(request, 2, final=None)

    server.behave = unmarked
    assert await collect(client.stream("m", row(0))) == [1, 2]


async def test_leaving_a_stream_cancels_it_on_the_server(server, client) -> None:
    async def endless(request):
        yield answer(request, 1, final=False)
        await asyncio.Event().wait()

    server.behave = endless
    async with aclosing(client.stream("m", row(0))) as answers:
        await anext(answers)
    async with asyncio.timeout(20):
        await server.cancelled.wait()


async def test_a_stream_has_a_deadline(server, client) -> None:
    async def stuck(request):
        yield answer(request, 1, final=False)
        await asyncio.Event().wait()

    server.behave = stuck
    with pytest.raises(DeadlineExceeded):
        await collect(client.stream("m", row(0), timeout=0.3))


async def test_an_error_ends_a_stream_of_answers(server, client) -> None:
    async def fails(request):
        yield answer(request, 1, final=False)
        yield refusal(request, "The model failed.")

    server.behave = fails
    with pytest.raises(MeshError, match="The model failed"):
        await collect(client.stream("m", row(0)))


async def test_a_stream_goes_to_another_server_only_before_its_first_answer() -> None:
    async def begins(request):
        yield answer(request, 1, final=False)
        raise Break

    async def falls_over(request):
        one.is_serving = False  # or a probe finds it well a moment later, and it is asked again
        raise Break
        yield

    async with fake_server(falls_over) as one, fake_server() as other:
        async with InferenceClient(one.address, other.address) as client:
            assert await collect(client.stream("m", row(5))) == [5]
            other.behave = begins
            with pytest.raises(Unavailable):
                await collect(client.stream("m", row(5)))
        assert (len(one.asked), len(other.asked)) == (1, 2)


async def test_a_decoupled_model_is_not_asked_for_one_answer(server, client) -> None:
    async def two(request):
        yield answer(request, 1, final=False)
        yield answer(request, 2)

    server.behave = two
    with pytest.raises(InvalidRequest, match=r"use stream\(\)"):
        await client.infer("m", row(0))


async def test_a_sequence_is_marked_and_stays_on_its_server() -> None:
    async with fake_server() as one, fake_server() as other, InferenceClient(one.address, other.address) as client:
        async with client.sequence("m", version="1") as first, client.sequence("m") as second:
            for number in range(3):
                await first.infer(row(number), last=number == 2)
                await second.infer(row(number))
        for server in (one, other):
            assert len(server.asked) == 3
            assert len({request.parameters["sequence_id"].int64_param for request in server.asked}) == 1
            assert [request.parameters["sequence_start"].bool_param for request in server.asked] == [True, False, False]
        ends = [[request.parameters["sequence_end"].bool_param for request in server.asked] for server in (one, other)]
        assert sorted(ends) == [[False, False, False], [False, False, True]]
        with pytest.raises(FailedPrecondition, match="has ended"):
            await first.infer(row(1))
        with pytest.raises(FailedPrecondition, match="was left"):
            await second.infer(row(1))


async def test_the_requests_of_a_sequence_run_one_after_the_other(server, client) -> None:
    running = 0

    async def alone(request):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1
        async for response in echo(request):
            yield response

    server.behave = alone
    async with client.sequence("m") as sequence:
        answers = await asyncio.gather(*(sequence.infer(row(number)) for number in range(20)))
    assert [float(answer["y"][0, 0]) for answer in answers] == list(range(20))


async def test_only_the_first_request_of_a_sequence_is_tried_again() -> None:
    async def falls_over(request):
        raise Break
        yield

    async with (
        fake_server(falls_over) as one,
        fake_server() as other,
        InferenceClient(one.address, other.address) as client,
        client.sequence("m") as sequence,
    ):
        await sequence.infer(row(1))
        assert one.asked[0].parameters["sequence_id"] != other.asked[0].parameters["sequence_id"]
        other.behave = falls_over
        with pytest.raises(Unavailable):
            await sequence.infer(row(2))
        assert (len(one.asked), len(other.asked)) == (1, 2)
        with pytest.raises(FailedPrecondition, match="broke off"):
            await sequence.infer(row(3))


async def test_a_request_of_a_sequence_that_is_refused_can_be_sent_again() -> None:
    async def refuses(request):
        yield refusal(request, "no such shape")

    async with fake_server() as server, InferenceClient(server.address) as client, client.sequence("m") as sequence:
        await sequence.infer(row(1))
        well, server.behave = server.behave, refuses
        with pytest.raises(MeshError, match="no such shape"):
            await sequence.infer(row(2), last=True)
        server.behave = well
        assert float((await sequence.infer(row(3), last=True))["y"][0, 0]) == 3
        with pytest.raises(FailedPrecondition, match="has ended"):
            await sequence.infer(row(4))


async def test_models_are_described_by_any_server_and_loaded_by_all() -> None:
    async with (
        fake_server() as one,
        fake_server() as other,
        InferenceClient(one.address, other.address) as client,
    ):
        models = client.models
        assert await models.is_ready("m")
        assert (await models.metadata("m", version="1")).name == "m"
        assert (await models.config("m")).name == "m"
        assert (await models.statistics("m"))[0].inference_count == 7
        assert [entry.name for entry in await models.index(ready=True)] == ["m"]
        one.calls.clear()
        other.calls.clear()
        await models.load("m", config={"max_batch_size": 8}, files={"1/model.onnx": b"onnx"})
        await models.unload("m", server=other.address)
        loaded = ("RepositoryModelLoad", {
            "modelName": "m",
            "parameters": {
                "config": {"stringParam": '{"max_batch_size": 8}'},
                "file:1/model.onnx": {"bytesParam": "b25ueA=="},
            },
        })  # fmt: skip
        assert one.calls == [loaded]
        assert other.calls == [loaded, ("RepositoryModelUnload", {"modelName": "m"})]
        with pytest.raises(NotFound, match="There is no server nowhere:1"):
            await models.index(server="nowhere:1")


@pytest.mark.parametrize("by_channel", [False, True], ids=["of an address", "of a channel"])
async def test_a_request_too_large_to_send_is_refused_alone(server, by_channel) -> None:
    came, go_on = asyncio.Event(), asyncio.Event()

    async def held(request):
        came.set()
        await go_on.wait()
        async for response in echo(request):
            yield response

    server.behave = held
    large = {"x": np.ones((1, 2000), np.float32)}
    async with (
        connect(server.address, max_message_bytes=4096) as channel,
        InferenceClient(channel if by_channel else server.address, max_message_bytes=4096) as client,
    ):
        asked = asyncio.create_task(client.infer("m", row(3)))
        await came.wait()
        for refused in (client.infer, client.infer_alone):
            with pytest.raises(InvalidRequest, match=r"takes 80\d\d bytes, more than the 4096"):
                await asyncio.gather(*(refused("m", large) for _ in range(20)))
        with pytest.raises(InvalidRequest, match="more than the 4096"):
            await collect(client.stream("m", large))
        with pytest.raises(InvalidRequest, match="more than the 4096"):
            await client.models.load("m", config={}, files={"1/model.onnx": bytes(5000)})
        go_on.set()
        assert (await asked)["y"] == 3
    assert server.streams == 1


async def test_requests_may_be_as_large_as_our_servers_take_them(server) -> None:
    async with InferenceClient(server.address) as client:
        with pytest.raises(InvalidRequest, match=f"more than the {64 << 20} "):
            await client.infer("m", {"x": np.empty(64 << 18, np.float32)})


async def test_who_asked_as_the_client_is_left_learns_of_it(server) -> None:
    async with InferenceClient(server.address) as client:
        asked = asyncio.create_task(client.infer("m", row(1)))
        await asyncio.sleep(0)  # it has asked, and its stream is not open yet
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await asked


async def test_who_asks_a_client_that_is_being_left_does_not_keep_it(server) -> None:
    async def tries_again(client) -> None:
        with pytest.raises(Unavailable):
            await client.infer("held", row(1))
        with pytest.raises(Unavailable):
            await client.infer("other", row(1))

    async def held(request):
        await asyncio.Event().wait()
        yield

    server.behave = held
    async with asyncio.timeout(20):
        async with InferenceClient(server.address) as client:
            trying = asyncio.create_task(tries_again(client))
            await until(lambda: server.asked)
        await trying


async def test_a_server_that_did_not_say_whether_it_takes_requests_back_is_asked_again(server, client) -> None:
    server.is_gone, server.extensions = True, [CANCEL]
    await client.infer("m", row(1))
    (own,) = client._pool.servers
    await until(lambda: own._cancels is None)
    server.is_gone = False
    await client.infer("n", row(1))
    await until(lambda: own._cancels)

    async def held(request):
        await asyncio.Event().wait()
        yield

    server.behave = held
    asked = asyncio.create_task(client.infer("n", row(2)))
    await until(lambda: len(server.asked) == 3)
    asked.cancel()
    await until(lambda: len(server.asked) == 4)
    assert server.asked[3].id == server.asked[2].id
    assert server.asked[3].parameters[CANCEL].bool_param
