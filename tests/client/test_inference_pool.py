"""A request goes to the server that has least to do, and to another when that one fails; it is answered once."""

from __future__ import annotations

import asyncio
import base64
import time

import numpy as np
import pytest

from mediamesh.client.inference import InferenceClient
from mediamesh.client.inference import server as client_server
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    NotFound,
    Overloaded,
    Unavailable,
)
from mediamesh.wire.infer_request import STATUS_PARAMETER
from tests.client.fake_inference import Break, answer, echo, fake_server, refusal
from tests.conformance.making import until

NOBODY = "127.0.0.1:1"


def row(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([values], np.float32)}


def of_status(request, error: MeshError):
    """Return an error as a server of ours tells it on a stream."""
    response = refusal(request, error.text)
    packed = base64.b64encode(error.to_status().SerializeToString()).decode()
    response.infer_response.parameters[STATUS_PARAMETER].string_param = packed
    return response


def refusing(error: MeshError):
    async def behave(request):
        yield of_status(request, error)

    return behave


async def falls_over(request):
    raise Break
    yield


@pytest.fixture
async def pair():
    async with fake_server() as one, fake_server() as other:
        yield one, other


async def test_requests_for_one_model_share_one_stream_on_each_server(pair) -> None:
    async with InferenceClient(*(server.address for server in pair)) as client:
        answers = await asyncio.gather(*(client.infer("m", row(number)) for number in range(100)))
        await client.infer("n", row(1))
    assert [float(answer["y"][0, 0]) for answer in answers] == list(range(100))
    assert sum(len(server.asked) for server in pair) == 101
    assert sum(server.streams for server in pair) == 3


async def test_the_server_with_fewest_unanswered_requests_is_asked(pair) -> None:
    slow, fast = pair
    let_go = asyncio.Event()

    async def held(request):
        await let_go.wait()
        yield answer(request, 0)

    slow.behave = held
    async with InferenceClient(slow.address, fast.address) as client, asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(client.infer("m", row(1))) for _ in range(4)]
        # Not only asked: until its answers are here the quick one has as much to do as the other.
        await until(lambda: len(slow.asked) == 2 and sum(task.done() for task in first) == 2)
        for _ in range(10):
            await client.infer("m", row(1))
        assert len(slow.asked) == 2
        let_go.set()


async def test_a_request_whose_server_falls_over_is_answered_by_the_other(pair) -> None:
    broken, sound = pair
    broken.behave = falls_over
    async with InferenceClient(broken.address, sound.address) as client:
        answers = await asyncio.gather(*(client.infer("m", row(number)) for number in range(50)))
        alone = await client.infer_alone("m", row(50))
    assert [float(answer["y"][0, 0]) for answer in [*answers, alone]] == list(range(51))
    assert len(sound.asked) == 51


async def test_a_server_that_is_not_there_costs_no_request() -> None:
    async with fake_server() as sound, InferenceClient(NOBODY, sound.address, NOBODY) as client:
        for number in range(20):
            assert (await client.infer("m", row(number)))["y"] == number


async def test_a_server_that_failed_is_left_alone_until_it_answers_a_probe(pair) -> None:
    sick, sound = pair
    sick.behave, sick.is_serving = falls_over, False
    async with InferenceClient(sick.address, sound.address) as client:
        for _ in range(10):
            await client.infer("m", row(1))
        assert len(sick.asked) <= 1
        sick.behave, sick.is_serving = echo, True
        before = len(sick.asked)
        async with asyncio.timeout(20):
            while len(sick.asked) == before:
                await client.infer("m", row(1))
                await asyncio.sleep(0.01)


@pytest.fixture
def lacking_lasts(monkeypatch) -> None:
    """That a server lacks a model is not forgotten while the test runs."""
    monkeypatch.setattr(client_server, "_LACK_SECONDS", 3600)


@pytest.mark.usefixtures("lacking_lasts")
async def test_a_model_that_one_server_lacks_runs_on_the_other(pair) -> None:
    without, having = pair
    without.behave = refusing(NotFound("There is no model 'm'.", model="m"))
    async with InferenceClient(without.address, having.address) as client:
        for _ in range(10):
            await client.infer("m", row(1))
        assert (len(without.asked), len(having.asked)) == (1, 10)
        having.behave = without.behave
        with pytest.raises(NotFound, match="There is no model"):
            await client.infer("m", row(1))


@pytest.mark.usefixtures("lacking_lasts")
async def test_a_model_that_a_triton_lacks_runs_on_the_other(pair) -> None:
    without, having = pair

    async def unknown(request):
        yield refusal(request, "Request for unknown model: 'm' is not found")

    without.behave, without.has_models = unknown, False
    async with InferenceClient(without.address, having.address) as client:
        for _ in range(10):
            await client.infer("m", row(1))
    assert (len(without.asked), len(having.asked)) == (1, 10)


async def test_a_server_that_goes_away_before_it_can_be_asked_about_the_model_costs_no_request(pair) -> None:
    going, staying = pair

    async def breaks_off(request):
        yield refusal(request, "Stream removed")

    going.behave, going.is_gone = breaks_off, True
    async with InferenceClient(going.address, staying.address) as client:
        assert (await client.infer("m", row(1)))["y"].tolist() == [[1]]
    assert (len(going.asked), len(staying.asked)) == (1, 1)


async def test_what_an_overloaded_server_refuses_the_other_takes(pair) -> None:
    full, free = pair
    full.behave = refusing(Overloaded.retry("The queue of model m is full.", 0.1))
    async with InferenceClient(full.address, free.address) as client:
        for _ in range(10):
            await client.infer("m", row(1))
        assert len(free.asked) == 10
        free.behave = full.behave
        with pytest.raises(Overloaded) as raised:
            await client.infer("m", row(1))
    assert raised.value.retry_after == pytest.approx(0.1)


@pytest.mark.parametrize("error", [InvalidRequest("x: expected FP32"), DeadlineExceeded("Too late."), MeshError("No.")])
async def test_what_is_wrong_with_the_request_is_not_tried_elsewhere(pair, error) -> None:
    for server in pair:
        server.behave = refusing(error)
    async with InferenceClient(*(server.address for server in pair)) as client:
        with pytest.raises(type(error), match=error.text):
            await client.infer("m", row(1))
    assert sum(len(server.asked) for server in pair) == 1


async def test_the_deadline_holds_for_all_tries_together(pair) -> None:
    for server in pair:
        server.behave = falls_over
    async with InferenceClient(*(server.address for server in pair), patience=60) as client:
        for seconds in (0.3, 3, 30):  # the longer, the slower this machine is: it takes two tries to see a difference
            begin = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=rf"within {seconds:g} s"):
                await client.infer("m", row(1), timeout=seconds)
            assert seconds - 0.05 < time.monotonic() - begin < seconds + 10
            left = [request.parameters["timeout"].int64_param for server in pair for request in server.asked]
            if len(left) > 1:
                break
        assert max(left) <= seconds * 1e6
        assert len(set(left)) > 1, "every try carries the time that is left"


async def test_patience_outlasts_a_restart() -> None:
    async with fake_server() as first:
        port = int(first.address.rpartition(":")[2])
    async with InferenceClient(f"127.0.0.1:{port}", patience=30) as client, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(client.infer("m", row(3)))
        await asyncio.sleep(0)
        async with fake_server(port=port):
            assert (await asked)["y"] == 3


async def test_without_any_server_the_failure_is_told() -> None:
    async with InferenceClient(NOBODY, NOBODY, patience=0.1) as client:
        outcomes = await asyncio.gather(*(client.infer("m", row(1)) for _ in range(100)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_a_client_without_servers_says_so() -> None:
    with pytest.raises(InvalidRequest, match="at least one address"):
        InferenceClient()


async def test_what_the_block_raises_comes_out_as_it_is(pair) -> None:
    with pytest.raises(ZeroDivisionError):
        async with InferenceClient(pair[0].address) as client:
            await client.infer("m", row(1))
            _ = 1 / 0


async def test_an_error_that_names_no_request_fails_the_one_that_waits(pair) -> None:
    async def nameless(request):
        response = refusal(request, "failed to read the request")
        response.infer_response.id = ""
        yield response

    pair[0].behave = nameless
    async with InferenceClient(pair[0].address) as client:
        with pytest.raises(MeshError, match="failed to read"):
            await client.infer("m", row(1))
