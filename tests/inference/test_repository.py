"""A repository is read as Triton reads it, and what is wrong in it is said with file and field."""

from __future__ import annotations

import logging

import grpc
import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.configuration.config import LoadError, read_config
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.repository.repository import Repository, open_repository
from mediamesh.inference.settings import Settings
from mediamesh.kit.settings import SettingsError
from mediamesh.wire.errors import NotFound
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)


async def loaded(repository, **settings) -> Repository:
    async with open_repository(Settings(model_repository=repository, **settings)) as opened:
        return opened


async def test_without_a_config_the_onnx_file_says_everything(tmp_path) -> None:
    models.add_model(tmp_path, "double", models.double())
    config = (await loaded(tmp_path)).find("double").config
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert list(config.input) == [config_pb.ModelInput(name="x", data_type=config_pb.TYPE_FP32, dims=[2])]
    assert list(config.output) == [config_pb.ModelOutput(name="y", data_type=config_pb.TYPE_FP32, dims=[2])]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", [10]),
        ("version_policy { latest { num_versions: 2 } }", [2, 10]),
        ("version_policy { all {} }", [1, 2, 10]),
        ("version_policy { specific { versions: [1] } }", [1]),
    ],
)
async def test_the_version_policy_chooses(tmp_path, policy, versions) -> None:
    for version in (1, 2, 10):
        models.add_model(tmp_path, "double", models.double(), version=version)
    (tmp_path / "double" / "config.pbtxt").write_text(policy)
    for passed_over in ("007", "notes", "0"):
        (tmp_path / "double" / passed_over).mkdir()
    repository = await loaded(tmp_path)
    assert [model.version for model in repository.loaded()] == versions
    assert repository.find("double").version == max(versions)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("max_batch_size: ten", r"config.pbtxt: 1:17 : .*max_batch_size"),
        ("max_batch_size: -1", "max_batch_size: -1 is below 0"),
        ('name: "triple"', "name: 'triple', expected 'double'"),
        ('backend: "tensorflow"', "backend: 'tensorflow', expected 'onnxruntime'"),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled: not supported"),
        ('parameters { key: "x" value { string_value: "1" } }', r"parameters\[x\].string_value: not supported"),
        ("dynamic_batching {}", "dynamic_batching: needs a max_batch_size"),
        ('default_model_filename: "../other.onnx"', "default_model_filename"),
        ("instance_group { count: 1 kind: KIND_GPU }", "KIND_GPU, but onnxruntime runs the model on CPUExecution"),
        (
            'input { name: "z" data_type: TYPE_FP32 dims: [-1, 2] }',
            "input 'z': the ONNX file has no such input",
        ),
        ('input { name: "x" data_type: TYPE_INT8 dims: [-1, 2] }', "data_type: TYPE_INT8, the ONNX file has TYPE_FP32"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 3] }', r"dims: \[-1, 3\], the ONNX file has \[-1, 2\]"),
        ("version_policy { specific { versions: [3] } }", r"version_policy.specific: \[3\] not among \[1\]"),
        ('default_model_filename: "other.onnx"', "other.onnx: there is no such file"),
    ],
)
async def test_what_a_config_asks_for_in_vain_is_said_with_file_and_field(tmp_path, config, sentence) -> None:
    models.add_model(tmp_path, "double", models.double(), config)
    models.add_model(tmp_path, "good", models.double())
    async with (
        inference_server(tmp_path) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
    ):
        with pytest.raises(NotFound, match=sentence) as raised:
            await client.infer_alone("double", {"x": ONES})
        assert str(tmp_path / "double") in str(raised.value)
        stub = GRPCInferenceServiceStub(channel)
        index = {entry.name: entry for entry in (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models}
        assert (index["double"].state, index["good"].state) == ("UNAVAILABLE", "READY")
        assert index["double"].reason in str(raised.value)
        assert (await client.infer_alone("good", {"x": ONES}))["y"].tolist() == [[2, 2]]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12" + b"\xff" * 400])
async def test_a_file_that_is_no_model_is_refused_with_its_path(tmp_path, content) -> None:
    models.add_model(tmp_path, "broken", content)
    repository = await loaded(tmp_path)
    with pytest.raises(NotFound, match=r"broken/1/model\.onnx: "):
        repository.find("broken")


async def test_a_model_without_a_version_is_refused(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="there is no version"):
        (await loaded(tmp_path)).find("empty")


def test_a_config_that_is_not_text_is_refused(tmp_path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(LoadError, match=r"config\.pbtxt"):
        read_config(tmp_path / "config.pbtxt")


def test_a_repository_that_is_not_there_is_a_wrong_setting(tmp_path) -> None:
    with pytest.raises(SettingsError, match="MEDIAMESH_INFERENCE_MODEL_REPOSITORY"):
        Settings.load(model_repository=tmp_path / "nowhere")


async def test_a_server_none_of_whose_models_loads_is_not_healthy(tmp_path) -> None:
    models.add_model(tmp_path, "broken", b"")
    repository = await loaded(tmp_path)
    with pytest.raises(Exception, match="No model could be loaded"):
        await repository.check()


@pytest.mark.parametrize(
    ("group", "workers", "threads"),
    [
        ("", 3, 1),
        ("instance_group { count: 1 kind: KIND_CPU }", 1, 3),
        ("instance_group { count: 5 }", 5, 1),
    ],
)
async def test_the_count_of_instances_chooses_throughput_or_latency(
    tmp_path, monkeypatch, group, workers, threads
) -> None:
    used = []

    def session(label, path, *, threads, **settings):
        used.append(threads)
        return Session(label, path, threads=threads, **settings)

    monkeypatch.setattr("mediamesh.inference.onnx.instances.cores", lambda limit: limit)
    monkeypatch.setattr("mediamesh.inference.onnx.instances.Session", session)
    models.add_model(tmp_path, "double", models.double(), group)
    config = (await loaded(tmp_path, cpu_threads=3)).find("double").config
    assert config.instance_group[0].count == workers
    assert set(used) == {threads}


async def test_a_provider_that_is_missing_is_warned_about_and_cpu_taken(tmp_path, caplog) -> None:
    models.add_model(tmp_path, "double", models.double())
    with caplog.at_level(logging.WARNING):
        repository = await loaded(tmp_path, providers=("TensorrtExecutionProvider", "CPUExecutionProvider"))
    assert repository.find("double").backend.providers == ("CPUExecutionProvider",)
    assert "no TensorrtExecutionProvider" in caplog.text


async def test_an_empty_repository_serves_nothing_and_says_so(tmp_path, caplog) -> None:
    async with (
        inference_server(tmp_path) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
    ):
        with pytest.raises(NotFound, match="loaded are: none") as raised:
            await client.infer_alone("any", {"x": ONES})
    assert raised.value.code is grpc.StatusCode.NOT_FOUND
    assert "no model was loaded" in caplog.text
