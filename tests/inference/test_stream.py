"""The stream of a client outlives its server, and a server that stops answers what it has read."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import numpy as np
import pytest
from onnx import helper

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import serving
from mediamesh.wire.errors import InvalidRequest, Overloaded, Unavailable
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)


async def test_a_client_goes_on_after_its_server_was_restarted(tiny_repository) -> None:
    settings = Settings(model_repository=tiny_repository, grace_seconds=0.1)
    # The other is loaded by then: a port that is free for long is somebody else's.
    async with app(settings) as later, AsyncExitStack() as clients:
        async with app(settings) as part, serving(settings, part) as port:
            channel = await clients.enter_async_context(connect(f"127.0.0.1:{port}"))
            client = await clients.enter_async_context(InferenceClient(channel))
            await client.infer("double", {"x": ONES})
        with pytest.raises(Unavailable):
            await client.infer("double", {"x": ONES})
        again = settings.model_copy(update={"port": port})
        async with serving(again, later):
            async with asyncio.timeout(20):
                while True:
                    try:
                        answer = await client.infer("double", {"x": ONES})
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            assert answer["y"].tolist() == [[2, 2]]


async def test_a_server_that_stops_answers_what_it_has_read(tiny_repository, gate) -> None:
    settings = Settings(model_repository=tiny_repository, grace_seconds=10, measure_seconds=0)
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as tasks:
        async with app(settings) as part, serving(settings, part) as port:
            channel = await clients.enter_async_context(connect(f"127.0.0.1:{port}"))
            client = await clients.enter_async_context(InferenceClient(channel))
            gate.shut()
            asked = tasks.create_task(client.infer("double", {"x": ONES}))
            await gate.entered()
            tasks.create_task(_open(gate, part))
        assert (await asked)["y"].tolist() == [[2, 2]]


async def _open(gate, part) -> None:
    await part.drain()
    gate.open()


async def test_a_client_that_is_closed_tells_those_that_wait(tiny, gate) -> None:
    gate.shut()
    async with InferenceClient(tiny) as client:
        asked = asyncio.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
    with pytest.raises(Unavailable):
        await asked


async def test_callers_that_wait_for_room_learn_that_there_is_no_server() -> None:
    async with connect("127.0.0.1:1") as channel, InferenceClient(channel) as client:
        asked = [client.infer("double", {"x": ONES}) for _ in range(100)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_an_answer_larger_than_a_message_fails_its_request_alone(tmp_path) -> None:
    twice = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    model = models.onnx_bytes([twice], {"x": ("FP32", ["N", "W"])}, {"y": ("FP32", ["N", "V"])})
    models.add_model(tmp_path, "twice", model)
    async with (
        inference_server(tmp_path, max_message_bytes=8192, measure_seconds=0) as port,
        InferenceClient(f"127.0.0.1:{port}") as client,
    ):
        large = {"x": np.ones((1, 1500), np.float32)}
        asked = [client.infer("twice", large if number % 4 == 1 else {"x": ONES}) for number in range(20)]
        for number, outcome in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
            assert isinstance(outcome, InvalidRequest) == (number % 4 == 1), outcome
        with pytest.raises(InvalidRequest, match=r"the answer takes 12\d\d\d bytes, more than the 8192"):
            await client.infer_alone("twice", large)
        # What the client may send and the server does not take ends the stream, and another is opened.
        with pytest.raises(Overloaded, match="larger than max"):
            await client.infer("twice", {"x": np.ones((1, 4000), np.float32)})
        assert (await client.infer("twice", {"x": ONES}))["y"].shape == (1, 4)
