"""Models change under load and no request fails; what was unloaded is gone from memory."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.repository import control
from mediamesh.inference.repository.held import hold
from mediamesh.inference.repository.repository import open_repository
from mediamesh.inference.settings import Settings
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, NotFound, Unavailable
from tests.chaos.inference_load import address, inference_servers
from tests.inference import models
from tests.inference import sequence_models as sequences
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)
ONE_WORKER = "max_batch_size: 8 instance_group { count: 1 kind: KIND_CPU }"


@asynccontextmanager
async def served(repository: Path, **settings):
    settings = {"model_control": "explicit", "load_models": ("*",), **settings}
    async with (
        inference_server(repository, **settings) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
    ):
        yield client


def replace(repository: Path, name: str, content: bytes, version: int = 1) -> None:
    """Put a file in another's place, as a deployment does: at once."""
    target = repository / name / str(version) / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    beside = target.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(target)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in the server, which sets no event
            await asyncio.sleep(0.005)


async def read_by_then(client) -> None:
    """Wait until the server has read what tasks that were just made ask on the stream of the model "scale"."""
    await asyncio.sleep(0)
    # It reads in order: once a request behind them is refused, they have their places.
    with pytest.raises(InvalidRequest):
        await client.infer("scale", {"x": ONES[:, :1]})


async def factor(client, name: str = "scale", version: str = "") -> float:
    return float((await client.infer(name, {"x": ONES}, version=version))["y"][0, 0])


async def test_a_model_is_replaced_under_load_and_no_request_fails(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(2), ONE_WORKER)
    async with served(tmp_path) as client:
        seen: set[float] = set()
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                seen.add(await factor(client))

        async with asyncio.TaskGroup() as asking:
            for _ in range(8):
                asking.create_task(ask())
            for number in range(3, 9):
                replace(tmp_path, "scale", models.times(number))
                await client.models.load("scale")
                assert await factor(client) == number
            over.set()
        assert seen <= {2, 3, 4, 5, 6, 7, 8}
        assert await factor(client) == 8


async def test_what_runs_and_waits_on_the_old_one_is_finished_there(tmp_path, gate) -> None:
    models.add_model(tmp_path, "scale", models.times(2), ONE_WORKER)
    async with served(tmp_path) as client:
        gate.shut()
        async with asyncio.TaskGroup() as tasks:
            old = [tasks.create_task(factor(client))]
            await gate.entered()
            old += [tasks.create_task(factor(client)) for _ in range(4)]
            await read_by_then(client)
            replace(tmp_path, "scale", models.times(3))
            load = tasks.create_task(client.models.load("scale"))
            await gate.entered()  # the new one warms up
            assert not load.done()
            gate.open()
        assert [task.result() for task in old] == [2] * 5
        assert await factor(client) == 3


async def test_what_runs_while_it_is_unloaded_is_finished(tmp_path, gate) -> None:
    models.add_model(tmp_path, "scale", models.times(2), ONE_WORKER)
    async with served(tmp_path) as client:
        gate.shut()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(factor(client))
            await gate.entered()
            waiting = tasks.create_task(factor(client))
            await read_by_then(client)
            await client.models.unload("scale")
            assert [entry.state for entry in await client.models.index()] == ["UNLOADING"]
            with pytest.raises(NotFound, match="is being unloaded"):
                await factor(client)
            gate.open()
        assert (running.result(), waiting.result()) == (2, 2)


async def test_a_broken_file_leaves_the_model_that_runs(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(2))
    async with served(tmp_path) as client:
        replace(tmp_path, "scale", b"broken")
        with pytest.raises(FailedPrecondition, match=r"scale/1/model\.onnx"):
            await client.models.load("scale")
        assert await factor(client) == 2
        (entry,) = await client.models.index()
        assert entry.state == "READY"
        assert "could not be loaded again" in entry.reason
        replace(tmp_path, "scale", models.times(5))
        await client.models.load("scale")
        assert await factor(client) == 5
        assert [entry.reason for entry in await client.models.index()] == [""]


async def test_the_version_policy_chooses_again_when_a_model_is_loaded_again(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(1), "version_policy { latest { num_versions: 2 } }")
    async with served(tmp_path) as client:
        replace(tmp_path, "scale", models.times(2), version=2)
        replace(tmp_path, "scale", models.times(3), version=3)
        await client.models.load("scale")
        assert await factor(client) == 3
        assert await factor(client, version="2") == 2
        with pytest.raises(NotFound):
            await factor(client, version="1")
        shutil.rmtree(tmp_path / "scale" / "3")
        await client.models.load("scale")
        assert await factor(client) == 2
        assert await factor(client, version="1") == 1


async def test_a_new_version_that_is_broken_leaves_the_old_ones(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(1))
    async with served(tmp_path) as client:
        replace(tmp_path, "scale", b"broken", version=2)
        with pytest.raises(FailedPrecondition, match=r"scale/2/model\.onnx"):
            await client.models.load("scale")
        assert await factor(client) == 1
        assert {entry.version: entry.state for entry in await client.models.index()} == {
            "1": "READY",
            "2": "UNAVAILABLE",
        }


async def test_what_has_not_changed_is_not_loaded_again(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(1), "version_policy { all {} }")
    models.add_model(tmp_path, "scale", models.times(2), version=2)
    async with served(tmp_path) as client:
        await factor(client, version="1")
        await factor(client, version="2")
        replace(tmp_path, "scale", models.times(3), version=2)
        await client.models.load("scale")
        counts = {entry.version: entry.inference_count for entry in await client.models.statistics("scale")}
        assert counts == {"1": 1, "2": 0}


async def test_polling_follows_the_repository(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(1))
    models.add_model(tmp_path, "gone", models.double())
    async with served(tmp_path, model_control="poll", load_models=(), poll_seconds=0.02) as client:
        models.add_model(tmp_path, "new", models.double())
        shutil.rmtree(tmp_path / "gone")
        replace(tmp_path, "scale", models.times(6))

        async def followed() -> bool:
            states = {entry.name: entry.state for entry in await client.models.index()}
            return states == {"scale": "READY", "new": "READY"} and await factor(client) == 6

        await until(followed)
        with pytest.raises(FailedPrecondition, match="model_control is 'poll'"):
            await client.models.load("scale")


async def test_a_sequence_goes_on_where_it_began_while_others_begin_on_the_new_model(tmp_path) -> None:
    state = 'state { input_name: "state" output_name: "state_next" data_type: TYPE_FP32 dims: [ 1 ] }'
    strategy = "oldest { max_candidate_sequences: 4 }"
    sequences.add_sequence_model(tmp_path, "total", sequences.total(), f"{strategy} {state}")
    async with served(tmp_path) as client, client.sequence("total") as old, client.sequence("total") as new:

        async def add(sequence, value: float, *, last: bool = False) -> float:
            return float((await sequence.infer({"x": np.full((1, 1), value, np.float32)}, last=last))["y"][0, 0])

        assert await add(old, 10) == 10
        config = tmp_path / "total" / "config.pbtxt"
        config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))
        await client.models.load("total")
        assert (await client.models.config("total")).max_batch_size == 4
        assert await add(new, 1) == 1
        assert await add(old, 10) == 20
        assert await add(new, 1) == 2
        assert await add(old, 10, last=True) == 30
        assert await add(new, 1, last=True) == 3


async def test_a_server_that_stops_while_it_loads_does_not_wait_for_it(tmp_path, gate) -> None:
    models.add_model(tmp_path, "scale", models.times(1))
    settings = Settings(model_repository=tmp_path, model_control="explicit")
    gate.shut()
    async with asyncio.timeout(20):
        async with open_repository(settings) as repository:
            load = asyncio.create_task(repository.control.load("scale"))
            await gate.entered()  # it warms up
        with pytest.raises(Unavailable, match="The server stops"):
            await load


async def test_what_the_block_of_a_repository_raises_comes_out_as_it_is(tmp_path) -> None:
    models.add_model(tmp_path, "scale", models.times(1))
    with pytest.raises(ZeroDivisionError):
        async with open_repository(Settings(model_repository=tmp_path)):
            raise ZeroDivisionError


@pytest.mark.stack
async def test_memory_comes_back_when_a_model_is_unloaded(tmp_path) -> None:
    weights = 100e6
    # In a process of its own: this one has the memory of whatever other tests left in it.
    async with inference_servers(tmp_path, 1) as (part,), InferenceClient(address(part)) as client:
        models.add_model(tmp_path / "0" / "models", "large", models.weighty(int(weights / 4)))

        async def unloaded() -> bool:
            return {entry.name: entry.state for entry in await client.models.index()}["large"] == "UNAVAILABLE"

        before = part.memory
        for _ in range(3):
            await client.models.load("large")
            await client.infer("large", {"x": np.ones((1, 1), np.float32)})
            assert part.memory > before + 0.8 * weights
            await client.models.unload("large")
            await until(unloaded)
        assert part.memory < before + 0.3 * weights


@pytest.fixture
async def reloading(tmp_path, monkeypatch):
    """Two versions that are loaded again: the first is in place, the second begins once it is told to."""
    models.add_model(tmp_path, "scale", models.times(2), "version_policy { all {} }")
    replace(tmp_path, "scale", models.times(2), version=2)
    settings = Settings(model_repository=tmp_path, model_control="explicit", load_models=("*",), measure_seconds=0)
    begin = asyncio.Event()
    async with asyncio.timeout(20), open_repository(settings) as repository:
        placed, offer = asyncio.Event(), repository.offer

        def offered(model, reason="") -> None:
            offer(model, reason)
            placed.set()

        async def held(tasks, source, version, settings):
            if version == 2:
                await begin.wait()
            return await hold(tasks, source, version, settings)

        monkeypatch.setattr(repository, "offer", offered)
        monkeypatch.setattr(control, "hold", held)
        for version in (1, 2):
            replace(tmp_path, "scale", models.times(3), version)
        loading = asyncio.create_task(repository.control.load("scale"))
        await placed.wait()
        yield repository, loading, begin


async def test_a_server_may_stop_amid_the_loading_of_several_versions(reloading) -> None:
    repository, loading, _ = reloading
    await repository.control.stop()
    with pytest.raises(Unavailable):
        await loading


async def test_a_model_may_vanish_amid_the_loading_of_several_versions(reloading, tmp_path) -> None:
    repository, loading, begin = reloading
    old = repository.find("scale", "2")
    shutil.rmtree(tmp_path / "scale")
    begin.set()
    with pytest.raises(FailedPrecondition, match=r"/scale: No such file or directory"):
        await loading
    assert repository.find("scale", "2") is old
