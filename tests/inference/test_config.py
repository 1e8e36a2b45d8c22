"""Every field of config.pbtxt does what it says, or the model is refused with its name."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.configuration.config import LoadError, read_config
from mediamesh.inference.configuration.fields import ONNXRUNTIME, PARAMETERS, SUPPORTED
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.onnx.tuning import read_tuning
from mediamesh.inference.repository.repository import open_repository
from mediamesh.inference.settings import Settings
from mediamesh.inference.statistics import Statistics
from mediamesh.wire.errors import InvalidRequest, NotFound
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)


async def opened(repository, name="model", **settings):
    async with open_repository(Settings(model_repository=repository, **settings)) as held:
        return held.find(name)


def answers(repository, **settings):
    async def ask(**inputs):
        async with (
            inference_server(repository, **settings) as port,
            connect(f"127.0.0.1:{port}") as channel,
            InferenceClient(channel) as client,
        ):
            return await client.infer("model", inputs)

    return ask


async def test_a_reshaped_tensor_has_one_shape_for_callers_and_another_for_the_model(tmp_path) -> None:
    models.add_model(
        tmp_path,
        "model",
        models.double(width=6),
        """max_batch_size: 4 dynamic_batching {}
        input { name: "x" data_type: TYPE_FP32 dims: [2, 3] reshape { shape: [6] } }
        output { name: "y" data_type: TYPE_FP32 dims: [3, 2] reshape { shape: [6] } }""",
    )
    ask = answers(tmp_path)
    given = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    assert (await ask(x=given))["y"].tolist() == (2 * given).reshape(2, 3, 2).tolist()
    with pytest.raises(InvalidRequest, match=r"has shape \[2, 6\], expected \[-1, 2, 3\]"):
        await ask(x=given.reshape(2, 6))


async def test_variable_sizes_keep_their_order_through_a_reshape(tmp_path) -> None:
    models.add_model(
        tmp_path,
        "model",
        models.identity("FP32"),
        """input { name: "x" data_type: TYPE_FP32 dims: [1, -1, 1, -1] reshape { shape: [-1, -1] } }
        output { name: "y" data_type: TYPE_FP32 dims: [-1, 1, -1] reshape { shape: [-1, -1] } }""",
    )
    given = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)
    assert (await answers(tmp_path)(x=given))["y"].tolist() == given.reshape(2, 1, 3).tolist()


async def test_a_model_whose_items_are_single_numbers_is_offered_with_a_dimension(tmp_path) -> None:
    models.add_model(
        tmp_path,
        "model",
        models.pick(),
        """max_batch_size: 4
        input { name: "index" data_type: TYPE_INT64 dims: [1] reshape { shape: [] } }
        output { name: "picked" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }""",
    )
    assert (await answers(tmp_path)(index=np.array([[1], [2]])))["picked"].tolist() == [[11], [12]]


async def test_an_input_with_a_value_of_its_own_may_be_left_out(tmp_path) -> None:
    models.add_model(
        tmp_path,
        "model",
        models.optional_factor(),
        """input { name: "x" data_type: TYPE_FP32 dims: [-1, 2] }
        input { name: "factor" data_type: TYPE_FP32 dims: [1] optional: true }""",
    )
    ask = answers(tmp_path)
    assert (await ask(x=ONES))["y"].tolist() == [[10, 10]]
    assert (await ask(x=ONES, factor=np.array([3], np.float32)))["y"].tolist() == [[3, 3]]
    with pytest.raises(InvalidRequest, match="lacks input 'x'"):
        await ask(factor=np.array([3], np.float32))


async def test_only_the_outputs_that_are_listed_are_offered(tmp_path) -> None:
    models.add_model(
        tmp_path, "model", models.sum_and_difference(), 'output { name: "sum" data_type: TYPE_FP32 dims: [-1, 2] }'
    )
    answer = await answers(tmp_path)(a=ONES, b=ONES)
    assert {name: answer[name].tolist() for name in answer} == {"sum": [[2, 2]]}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('runtime: "x"', "runtime: not supported"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 2] is_shape_tensor: true }', "input.is_shape_tensor: not"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [2] allow_ragged_batch: true }', "allow_ragged_batch: not"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [2] is_non_linear_format_io: true }', "linear_format_io: not"),
        ('batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" }', "batch_input.target_name: not supported"),
        ('batch_output { target_name: "n" }', "batch_output.target_name: not supported"),
        ('instance_group { count: 1 profile: "0" }', "instance_group.profile: not supported"),
        ("instance_group { count: 1 passive: true }", "instance_group.passive: not supported"),
        ('instance_group { count: 1 host_policy: "x" }', "instance_group.host_policy: not supported"),
        ("instance_group { count: 1 rate_limiter { priority: 1 } }", "instance_group.rate_limiter.priority: not"),
        ("instance_group { secondary_devices { device_id: 1 } }", "secondary_devices.device_id: not supported"),
        ("instance_group { kind: KIND_MODEL }", "expected KIND_AUTO, KIND_CPU or KIND_GPU"),
        ("instance_group { count: -1 }", "a count of 0 or more"),
        ("instance_group { count: 100000 }", "at most 64 groups of 1024 instances"),
        ("instance_group { kind: KIND_CPU gpus: [0] }", "gpus: .0., but its kind is KIND_CPU"),
        ("instance_group { kind: KIND_GPU gpus: [0, 0] }", "each once"),
        ("optimization { cuda { busy_wait_events: true } }", "busy_wait_events: not supported"),
        ("optimization { cuda { output_copy_stream: true } }", "output_copy_stream: not supported"),
        ("optimization { cuda { graph_spec { batch_size: 1 } } }", "graph_spec.batch_size: not supported"),
        ("optimization { gather_kernel_buffer_threshold: 1 }", "gather_kernel_buffer_threshold: not supported"),
        ("optimization { eager_batching: true }", "eager_batching: not supported"),
        ("optimization { graph { level: 7 } }", "optimization.graph.level: 7, expected -1, 0, 1 or 2"),
        ('ensemble_scheduling { step { model_name: "a" } }', "ensemble_scheduling.step.model_name: not supported"),
        ('cc_model_filenames { key: "8.0" value: "x" }', r"cc_model_filenames\[8.0\]: not supported"),
        ('model_operations { op_library_filename: "x.so" }', "op_library_filename: not supported"),
        ('model_repository_agents { agents { name: "x" } }', "model_repository_agents.agents.name: not supported"),
        ("response_cache { enable: true }", "response_cache.enable: not supported"),
        ("model_metrics { metric_control {} }", "model_metrics.metric_control: not supported"),
        ('parameters { key: "execution_mode" value { string_value: "2" } }', "'2', expected 0 to 1"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "-1" } }', "'-1', expected 0 to 1024"),
        ('parameters { key: "enable_mem_arena" value { string_value: "yes" } }', "'yes', expected 0 to 1"),
        ('parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "disk" } }', "'cpu:0;gpu:0'"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, -2] }', r"dims: \[-1, -2\], expected sizes of 1 or more"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [4611686018427387904, 2] }', "more elements than any"),
        ('input { name: "x" dims: [-1, 2] } input { name: "x" dims: [-1, 2] }', "x is described twice"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 2] optional: true }', "no value for it, so it is needed"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 2] format: FORMAT_NCHW }', "format: is for three dim"),
        ('input { name: "x" dims: [2, 3] reshape { shape: [5] } }', "do not hold the same number of elements"),
        (
            'max_batch_size: 1 input { name: "x" data_type: TYPE_FP32 dims: [3] reshape { shape: [3, 1] } }',
            r"reshape: \[3, 1\], the ONNX file has \[-1, 2\], the first being the batch",
        ),
    ],
)  # fmt: skip
async def test_what_is_not_done_is_refused_by_file_and_field(tmp_path, config, sentence) -> None:
    models.add_model(tmp_path, "model", models.double(), config)
    with pytest.raises(NotFound, match=sentence) as raised:
        await opened(tmp_path)
    assert str(tmp_path / "model" / "config.pbtxt") in str(raised.value)


def test_a_configuration_beyond_any_size_is_refused(tmp_path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("#" * (5 << 20))
    with pytest.raises(LoadError, match="at most 4194304 are read"):
        read_config(path)


def test_every_supported_field_is_in_the_table_of_the_docs() -> None:
    table = (Path(__file__).parents[2] / "docs" / "inference.md").read_text().partition("## config.pbtxt")[2]
    named = {path.partition(".")[0] for path in SUPPORTED[ONNXRUNTIME]} - {"response_cache", "model_transaction_policy"}
    assert {
        name for name in {*(name.partition("[")[0] for name in named), *PARAMETERS} if f"`{name}" not in table
    } == set()


def test_every_supported_field_exists() -> None:
    for path in itertools.chain.from_iterable(SUPPORTED.values()):
        fields: Any = pb.ModelConfig.DESCRIPTOR.fields_by_name
        for part in re.sub(r"\[.*\]", "", path).split("."):
            assert part in fields, path
            kind = fields[part].message_type
            if kind is not None and kind.GetOptions().map_entry:
                kind = kind.fields_by_name["value"].message_type
            fields = kind.fields_by_name if kind is not None else {}


async def test_several_groups_divide_the_cores_among_their_instances(tmp_path, monkeypatch) -> None:
    used = []

    def session(label, path, *, threads, **settings):
        used.append(threads)
        return Session(label, path, threads=threads, **settings)

    monkeypatch.setattr("mediamesh.inference.onnx.instances.cores", lambda limit: 12)
    monkeypatch.setattr("mediamesh.inference.onnx.instances.Session", session)
    groups = 'instance_group [{ name: "a" count: 1 kind: KIND_CPU }, { count: 3 }]'
    models.add_model(tmp_path, "model", models.double(), groups)
    config = (await opened(tmp_path)).config
    assert [(group.name, group.count, group.kind) for group in config.instance_group] == [
        ("a", 1, pb.ModelInstanceGroup.KIND_CPU),
        ("model_1", 3, pb.ModelInstanceGroup.KIND_CPU),
    ]
    assert used == [3] * 4


async def test_options_of_the_session_are_those_of_the_configuration(tmp_path) -> None:
    path = models.add_model(tmp_path, "model", models.double()) / "config.pbtxt"
    path.write_text("""
        optimization {
          graph { level: 2 } priority: PRIORITY_MIN cuda { graphs: true }
          input_pinned_memory { enable: false } output_pinned_memory { enable: true }
        }
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
        parameters { key: "inter_op_thread_count" value { string_value: "5" } }
        parameters { key: "execution_mode" value { string_value: "1" } }
        parameters { key: "enable_mem_arena" value { string_value: "0" } }
        parameters { key: "enable_mem_pattern" value { string_value: "0" } }
        parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "gpu:0" } }
        parameters { key: "session.use_device_allocator_for_initializers" value { string_value: "1" } }
        parameters { key: "gpu_mem_limit" value { string_value: "4294967296" } }
        parameters { key: "arena_extend_strategy" value { string_value: "1" } }
        parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
        parameters { key: "do_copy_in_default_stream" value { string_value: "0" } }
    """)
    tuning = read_tuning(path, read_config(path), cores=4)
    assert (tuning.threads, tuning.nice, tuning.cuda_graphs) == (3, 19, True)
    assert (tuning.pinned_inputs, tuning.pinned_outputs) == (False, True)
    assert tuning.shrinkage == ("gpu:0",)
    assert tuning.cuda == {
        "gpu_mem_limit": "4294967296",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "0",
    }
    options = tuning.options(tuning.threads)
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 5)
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert (await answers(tmp_path)(x=ONES))["y"].tolist() == [[2, 2]]


async def test_metric_tags_are_labels_of_the_metrics(tmp_path) -> None:
    models.add_model(tmp_path, "model", models.double(), 'metric_tags { key: "team" value: "vision" }')
    model = await opened(tmp_path)
    statistics = model.backend.scheduler.statistics
    assert isinstance(statistics, Statistics)
    assert statistics.labels == {"team": "vision", "model": "model", "version": "1"}


async def test_whether_a_batch_pays_is_measured_and_stated(tmp_path) -> None:
    models.add_model(tmp_path, "model", models.double(), "max_batch_size: 8 dynamic_batching {}")
    parameters = (await opened(tmp_path, measure_seconds=5)).config.parameters
    assert 1 <= int(parameters["measured_batch_size"].string_value) <= 8
    assert [run.split(":")[0] for run in parameters["measured_milliseconds"].string_value.split(", ")] == list("1248")
    assert "measured_batch_size" not in (await opened(tmp_path, measure_seconds=0)).config.parameters


def test_a_configuration_with_a_text_that_is_too_deep_is_refused(tmp_path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("optimization {" * 5000)
    with pytest.raises(LoadError):
        read_config(path)


def test_the_text_of_a_refused_configuration_is_not_taken_for_one() -> None:
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch_sise: 4", pb.ModelConfig())
