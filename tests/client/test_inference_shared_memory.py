"""Tensors in shared memory need not travel; a server that forgot the memory is told again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import numpy as np
import pytest

from mediamesh.client.inference import InferenceClient, shared_memory
from mediamesh.inference.app import app
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import serving
from mediamesh.wire.errors import DeadlineExceeded, InvalidRequest, NotImplementedByServer
from tests.client.fake_inference import fake_server
from tests.inference import models
from tests.inference.conftest import inference_server

OBJECTS = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not OBJECTS.exists(), reason="this system keeps shared memory elsewhere")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("shared")
    models.add_model(repository, "double", models.double(), "max_batch_size: 8")
    return repository


@pytest.fixture(scope="module")
async def address(repository):
    async with inference_server(repository) as port:
        yield f"127.0.0.1:{port}"


async def test_inputs_and_outputs_lie_in_shared_memory(address) -> None:
    async with InferenceClient(address) as client, client.shared_tensors(100, slots=2) as shared:
        assert (OBJECTS / shared.name).exists()
        async with shared.take((3, 2)) as given, shared.take((3, 2)) as taken:
            given.array[...] = [[1, 2], [3, 4], [5, 6]]
            answer = await client.infer("double", {"x": given}, outputs={"y": taken})
            assert dict(answer) == {}
            assert answer.message.outputs[0].parameters["shared_memory_region"].string_param == shared.name
            assert taken.array.tolist() == [[2, 4], [6, 8], [10, 12]]
            assert (await client.infer_alone("double", {"x": given}))["y"].tolist() == taken.array.tolist()
    assert not (OBJECTS / shared.name).exists()


async def test_who_finds_no_slot_waits_for_one(address) -> None:
    async with InferenceClient(address) as client, client.shared_tensors(64, slots=2) as shared:

        async def ask(number: int) -> float:
            async with shared.take((1, 2)) as tensor:
                tensor.array[...] = number
                return float((await client.infer("double", {"x": tensor}))["y"][0, 0])

        assert await asyncio.gather(*map(ask, range(20))) == [2 * number for number in range(20)]


async def test_what_does_not_fit_into_a_slot_is_refused(address) -> None:
    async with InferenceClient(address) as client, client.shared_tensors(64) as shared:
        with pytest.raises(InvalidRequest, match="takes 68 bytes, a slot has 64"):
            async with shared.take((17,)):
                pass
        with pytest.raises(InvalidRequest):
            async with shared.take((1,), np.object_):
                pass


async def _cancelled(client, tensor) -> None:
    asked = asyncio.create_task(client.infer("double", {"x": tensor}))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def _too_late(client, tensor) -> None:
    with pytest.raises(DeadlineExceeded):
        await client.infer("double", {"x": np.ones((1, 2), np.float32)}, outputs={"y": tensor}, timeout=0)


async def _too_late_in_a_sequence(client, tensor) -> None:
    with pytest.raises(DeadlineExceeded):
        async with client.sequence("double") as sequence:
            await sequence.infer({"x": tensor}, timeout=0)


async def _left(client, tensor) -> None:
    async with aclosing(client.stream("double", {"x": tensor})) as answers:
        await anext(answers)


@pytest.mark.parametrize("unanswered", [_cancelled, _too_late, _too_late_in_a_sequence, _left])
async def test_a_slot_that_a_server_may_be_at_is_held_back(address, monkeypatch, unanswered) -> None:
    monkeypatch.setattr(shared_memory, "_HELD_BACK_SECONDS", 0.1)
    clock = asyncio.get_running_loop().time
    async with InferenceClient(address) as client, client.shared_tensors(64, slots=1) as shared:
        async with shared.take((1, 2)) as tensor:
            await unanswered(client, tensor)
            left = clock()
        async with asyncio.timeout(20), shared.take((1, 2)):
            assert clock() - left > 0.09


async def test_a_slot_whose_request_was_refused_is_free_and_one_held_back_keeps_nothing_open(address) -> None:
    async with InferenceClient(address) as client, client.shared_tensors(64, slots=1) as shared, asyncio.timeout(20):
        with pytest.raises(InvalidRequest):
            async with shared.take((1, 2)) as tensor:
                await client.infer("double", {"z": tensor})
        async with shared.take((1, 2)) as tensor:
            await _cancelled(client, tensor)
    assert not (OBJECTS / shared.name).exists()


async def test_a_server_that_was_restarted_is_told_again(repository) -> None:
    settings = Settings(model_repository=repository, grace_seconds=0.1)
    # The other is loaded by then: a port that is free for long is somebody else's.
    async with app(settings) as later, AsyncExitStack() as clients:
        async with app(settings) as part, serving(settings, part) as port:
            client = await clients.enter_async_context(InferenceClient(f"127.0.0.1:{port}", patience=30))
            shared = await clients.enter_async_context(client.shared_tensors(64))
            tensor = await clients.enter_async_context(shared.take((1, 2)))
            tensor.array[...] = 1
            await client.infer("double", {"x": tensor})
        again = settings.model_copy(update={"port": port})
        async with serving(again, later):
            assert (await client.infer("double", {"x": tensor}))["y"].tolist() == [[2, 2]]
            with pytest.raises(InvalidRequest, match="has no input"):
                await client.infer("double", {"x": tensor, "z": np.ones((1, 3), np.float32)})
            await clients.aclose()


async def test_a_server_without_shared_memory_says_so_and_nothing_is_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shared_memory, "_OBJECTS", tmp_path)
    async with fake_server() as server, InferenceClient(server.address) as client:
        with pytest.raises(NotImplementedByServer):
            async with client.shared_tensors(64):
                pass
    assert not list(tmp_path.iterdir())
