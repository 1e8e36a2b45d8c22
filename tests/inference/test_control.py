"""Callers load and unload models, with files and configurations of their own; what leads elsewhere is refused."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.repository.source import Override, open_source
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, NotFound, Overloaded
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)
TRIPLE = models.times(3)


@pytest.fixture
async def channel(tmp_path):
    """A channel to a server that loads what it is told to, and was told nothing."""
    models.add_model(tmp_path, "double", models.double())
    models.add_model(tmp_path, "other", models.double())
    async with (
        inference_server(tmp_path, model_control="explicit") as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


@pytest.fixture
async def client(channel):
    async with InferenceClient(channel) as client:
        yield client


async def states(client) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.state, entry.reason) for entry in await client.models.index()}


async def until(client, name: str, state: tuple[str, str]) -> None:
    async with asyncio.timeout(20):
        while (await states(client))[name] != state:  # noqa: ASYNC110 - the server tells nobody when it has unloaded
            await asyncio.sleep(0.001)


async def test_a_model_is_there_from_its_loading_to_its_unloading(client) -> None:
    assert await states(client) == {"double": ("", ""), "other": ("", "")}
    with pytest.raises(NotFound, match="loaded are: none"):
        await client.infer("double", {"x": ONES})
    await client.models.load("double")
    assert await states(client) == {"double": ("READY", ""), "other": ("", "")}
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]
    await client.models.unload("double")
    assert not await client.models.is_ready("double")
    await until(client, "double", ("UNAVAILABLE", "unloaded"))
    with pytest.raises(NotFound, match="'double' is unloaded"):
        await client.infer("double", {"x": ONES})
    await client.models.load("double")
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_explicit_control_loads_at_the_start_what_the_settings_name(tmp_path) -> None:
    for name in ("a", "b", "c"):
        models.add_model(tmp_path, name, models.double())
    for named, ready in (("b", {"b"}), ("*", {"a", "b", "c"})):
        async with (
            inference_server(tmp_path, model_control="explicit", load_models=(named,)) as port,
            connect(f"127.0.0.1:{port}") as channel,
            InferenceClient(channel) as client,
        ):
            assert {entry.name for entry in await client.models.index(ready=True)} == ready


async def test_without_explicit_control_callers_change_nothing(tiny) -> None:
    async with InferenceClient(tiny) as client:
        for change in (client.models.load, client.models.unload):
            with pytest.raises(FailedPrecondition, match="model_control is 'none', expected 'explicit'"):
                await change("double")
        assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_a_configuration_from_the_caller_takes_the_place_of_the_file(client) -> None:
    await client.models.load("double", config={"max_batch_size": 16, "dynamic_batching": {}})
    assert (await client.models.config("double")).max_batch_size == 16
    await client.models.load("double", config={"maxBatchSize": 2})
    assert (await client.models.config("double")).max_batch_size == 2
    await client.models.load("double")
    assert (await client.models.config("double")).max_batch_size == 4


async def test_files_from_the_caller_are_a_model_of_their_own(client) -> None:
    for name in ("double", "sent"):
        await client.models.load(name, config={"max_batch_size": 4}, files={"7/model.onnx": TRIPLE})
        answer = await client.infer(name, {"x": ONES})
        assert answer["y"].tolist() == [[3, 3]]
    assert [entry.version for entry in await client.models.index() if entry.name == "sent"] == ["7"]
    await client.models.load("double")
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]
    await client.models.unload("sent")
    with pytest.raises(NotFound):
        await client.models.load("sent")


async def test_files_may_come_in_base64_as_json_has_them(channel, client) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="sent")
    request.parameters["config"].string_param = "{}"
    request.parameters["file:1/model.onnx"].string_param = base64.b64encode(TRIPLE).decode()
    await GRPCInferenceServiceStub(channel).RepositoryModelLoad(request)
    assert (await client.infer("sent", {"x": ONES}))["y"].tolist() == [[3, 3]]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "1/../../x", "1//x", "", ".", "1\\x", "1/\0", "a/" * 20 + "x"])
async def test_a_file_that_would_lie_elsewhere_is_refused(client, path) -> None:
    with pytest.raises(InvalidRequest, match="is not a path within the model's directory"):
        await client.models.load("sent", config={}, files={"1/model.onnx": TRIPLE, path: b"x"})
    assert "sent" not in await states(client)


@pytest.mark.parametrize("name", ["../double", "/etc", "..", ".", "", "a/b", "a\\b", "a\0b", "x" * 300])
async def test_a_name_that_leads_elsewhere_is_refused(client, name) -> None:
    for change in (client.models.load, client.models.unload):
        with pytest.raises(InvalidRequest, match="is not the name of a model's directory"):
            await change(name)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"config": pb.ModelRepositoryParameter(string_param="{")}, "is no model configuration in JSON"),
        ({"config": pb.ModelRepositoryParameter(string_param='{"maxBatch": 1}')}, "maxBatch"),
        ({"config": pb.ModelRepositoryParameter(int64_param=1)}, "expected a string_param that holds JSON"),
        ({"file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=TRIPLE)}, "files are sent without a config"),
        ({"file:1/model.onnx": pb.ModelRepositoryParameter(string_param="?")}, "is no base64"),
        ({"file:1/model.onnx": pb.ModelRepositoryParameter(bool_param=True)}, "expected bytes_param"),
        ({"speed": pb.ModelRepositoryParameter(int64_param=1)}, "is not known"),
    ],
)
async def test_parameters_that_make_no_sense_are_refused(channel, parameters, sentence) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="double", parameters=parameters)
    with pytest.raises(InvalidRequest, match=sentence):
        await GRPCInferenceServiceStub(channel).RepositoryModelLoad(request)


async def test_unload_dependents_is_taken_and_anything_else_refused(channel, client) -> None:
    await client.models.load("double")
    stub = GRPCInferenceServiceStub(channel)
    request = pb.RepositoryModelUnloadRequest(model_name="double")
    request.parameters["force"].bool_param = True
    with pytest.raises(InvalidRequest, match=r"parameters\[force\]"):
        await stub.RepositoryModelUnload(request)
    del request.parameters["force"]
    request.parameters["unload_dependents"].bool_param = True
    await stub.RepositoryModelUnload(request)
    assert not await client.models.is_ready("double")


async def test_a_model_that_is_not_there_is_named(client) -> None:
    for change in (client.models.load, client.models.unload):
        with pytest.raises(NotFound, match="no model 'nobody' in the repository"):
            await change("nobody")


async def test_what_cannot_be_loaded_is_told_to_its_caller_and_in_the_index(client, tmp_path) -> None:
    (tmp_path / "double" / "1" / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(FailedPrecondition, match=r"double/1/model\.onnx: ") as raised:
        await client.models.load("double")
    state, reason = (await states(client))["double"]
    assert state == "UNAVAILABLE"
    assert reason in str(raised.value)
    with pytest.raises(FailedPrecondition, match=r"sent/1/model\.onnx"):
        await client.models.load("sent", config={}, files={"1/model.onnx": b"garbage"})
    assert "sent" not in await states(client)


async def test_loads_and_unloads_of_one_model_take_turns(client) -> None:
    changes = [client.models.load, client.models.unload] * 6
    await asyncio.gather(*(change("double") for change in changes))
    await client.models.unload("double")
    await until(client, "double", ("UNAVAILABLE", "unloaded"))
    await client.models.load("double")
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_who_waits_for_a_turn_is_bounded(client, gate) -> None:
    gate.shut()  # the first warms up for as long as the others come
    loads = asyncio.as_completed([client.models.load("double") for _ in range(40)])
    for _ in range(24):
        with pytest.raises(Overloaded):
            await next(loads)
    gate.open()
    for load in loads:
        await load


async def test_a_caller_who_leaves_does_not_stop_a_load(client) -> None:
    load = asyncio.create_task(client.models.load("double"))
    await asyncio.sleep(0)
    load.cancel()
    await asyncio.wait([load])
    await client.models.load("double")
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


def test_what_was_sent_leaves_the_disk_with_the_last_that_uses_it(tmp_path) -> None:
    with open_source(tmp_path, "sent", Override("{}", {"1/model.onnx": b"x"})) as source:
        with source:
            assert source.versions() == [1]
        directory = source.directory
        assert directory.is_dir()
    assert not directory.parent.exists()
