"""Providers get the options that a configuration asks for; what a GPU would run is run here through the same code."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.onnx.bound import BoundRuns
from mediamesh.inference.onnx.providers import CPU, CUDA, TENSORRT, accelerated
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.onnx.tuning import Tuning, read_tuning
from tests.inference import models

ALL = [TENSORRT, CUDA, CPU]
GPU = """optimization { execution_accelerators { gpu_execution_accelerator { name: "%s" %s } } }"""


@pytest.fixture
def offered(monkeypatch):
    """Let onnxruntime offer what a build for GPUs does."""
    names = list(ALL)
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    return names


def providers(tmp_path, text: str, names=(CUDA, CPU), device: int = 0):
    path = tmp_path / "config.pbtxt"
    config = text_format.Parse(text, pb.ModelConfig())
    return accelerated(path, config, read_tuning(path, config, cores=1), names, device=device)


def test_without_accelerators_cuda_runs_on_its_device(tmp_path, offered) -> None:
    assert providers(tmp_path, "", device=3) == [(CUDA, {"device_id": "3"}), (CPU, {})]
    assert providers(tmp_path, "", names=[CPU]) == [(CPU, {})]


def test_tensorrt_goes_before_cuda_with_options_in_its_own_names(tmp_path, offered) -> None:
    parameters = "".join(
        f'parameters {{ key: "{key}" value: "{value}" }}'
        for key, value in (
            ("precision_mode", "FP16"),
            ("max_workspace_size_bytes", "1073741824"),
            ("trt_engine_cache_enable", "true"),
        )
    )
    assert providers(tmp_path, GPU % ("tensorrt", parameters)) == [
        (
            TENSORRT,
            {
                "device_id": "0",
                "trt_fp16_enable": "1",
                "trt_max_workspace_size": "1073741824",
                "trt_engine_cache_enable": "1",
            },
        ),
        (CUDA, {"device_id": "0"}),
        (CPU, {}),
    ]


def test_cuda_takes_options_from_its_accelerator_the_parameters_and_the_policy(tmp_path, offered) -> None:
    text = """optimization {
        cuda { graphs: true }
        execution_accelerators { gpu_execution_accelerator {
            name: "cuda" parameters { key: "cudnn_conv_use_max_workspace" value: "0" }
        } }
    }
    parameters { key: "gpu_mem_limit" value { string_value: "9" } }"""
    assert providers(tmp_path, text)[0] == (
        CUDA,
        {"device_id": "0", "gpu_mem_limit": "9", "enable_cuda_graph": "1", "cudnn_conv_use_max_workspace": "0"},
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GPU % ("auto_mixed_precision", ""), "name: 'auto_mixed_precision' is not supported, expected 'tensorrt'"),
        (GPU % ("tensorrt", 'parameters { key: "precision_mode" value: "FP4" }'), "'FP4', expected FP32, FP16 or INT8"),
        (GPU % ("tensorrt", 'parameters { key: "speed" value: "1" }'), r"parameters\[speed\]: TensorRT has no such"),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }',
            "has no OpenVINOExecutionProvider; it has",
        ),
    ],
)
def test_what_an_accelerator_does_not_know_is_refused(tmp_path, offered, text, sentence) -> None:
    with pytest.raises(LoadError, match=sentence):
        providers(tmp_path, text)


def test_openvino_is_taken_where_onnxruntime_has_it(tmp_path, offered) -> None:
    offered.insert(0, "OpenVINOExecutionProvider")
    text = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }'
    assert providers(tmp_path, text, names=[CPU]) == [("OpenVINOExecutionProvider", {}), (CPU, {})]


def test_an_accelerator_that_is_missing_is_warned_about(tmp_path, offered, caplog) -> None:
    offered.remove(TENSORRT)
    with caplog.at_level(logging.WARNING):
        assert [name for name, _ in providers(tmp_path, GPU % ("tensorrt", ""))] == [CUDA, CPU]
    assert "onnxruntime has no TensorrtExecutionProvider; CUDA is taken" in caplog.text


def test_a_gpu_that_is_not_there_falls_back_loudly(tmp_path, caplog) -> None:
    text = GPU % ("tensorrt", "") + "instance_group { count: 1 }"
    with caplog.at_level(logging.WARNING):
        assert providers(tmp_path, text, names=[CPU]) == [(CPU, {})]
    assert "gpu_execution_accelerator: has no effect" in caplog.text


@pytest.fixture(params=[False, True], ids=["plain", "recorded"])
def bound(tmp_path, request):
    """Bindings on the CPU, to a model of two inputs and two outputs; with and without the steps that graphs need."""
    path = models.add_model(tmp_path, "pair", models.sum_and_difference()) / "1" / "model.onnx"
    session = ort.InferenceSession(path, providers=[CPU])
    return BoundRuns(session, ("cpu", 0), Tuning(cuda_graphs=request.param))


def test_bound_runs_answer_as_plain_ones_do(bound) -> None:
    for number in range(50):
        a = np.full((1 + number % 20, 2), number, np.float32)
        b = np.ones_like(a)
        total, difference = bound.run({"a": a, "b": b}, ["sum", "difference"])
        assert total.tolist() == (a + b).tolist()
        assert difference.tolist() == (a - b).tolist()
        assert [array.tolist() for array in bound.run({"a": a, "b": b}, ["sum"])] == [(a + b).tolist()]


def test_what_a_bound_run_has_answered_is_not_changed_by_the_next(bound) -> None:
    ones = np.ones((2, 2), np.float32)
    (first,) = bound.run({"a": ones, "b": ones}, ["sum"])
    bound.run({"a": 5 * ones, "b": ones}, ["sum"])
    assert first.tolist() == [[2, 2], [2, 2]]


def test_a_model_on_a_device_runs_through_bindings_in_many_threads(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mediamesh.inference.onnx.session._device", lambda running, asked: ("cpu", 0))
    path = models.add_model(tmp_path, "double", models.double()) / "1" / "model.onnx"
    for tuning in (Tuning(), Tuning(cuda_graphs=True)):
        session = Session("double/1", path, providers=[(CPU, {})], threads=1, tuning=tuning)
        given = np.arange(6, dtype=np.float32).reshape(3, 2)
        for _ in range(3):
            assert session.run({"x": given}, ["y"])[0].tolist() == (2 * given).tolist()


def test_a_model_of_low_priority_yields_to_others(tmp_path, monkeypatch) -> None:
    lowered = []
    monkeypatch.setattr("os.setpriority", lambda which, who, nice: lowered.append(nice))
    path = models.add_model(tmp_path, "double", models.double()) / "1" / "model.onnx"
    session = Session("double/1", path, providers=[(CPU, {})], threads=1, tuning=Tuning(nice=19))
    for _ in range(3):
        session.run({"x": np.ones((1, 2), np.float32)}, ["y"])
    assert lowered == [19]
