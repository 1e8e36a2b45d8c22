"""Models answer what onnxruntime answers, alone and many at once, unary and on a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client.inference import InferenceClient
from tests.inference.models import VENDORED

LITE0 = "efficientnet_lite0_int8"


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((32, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="session")
def logits(pictures) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session: Any = onnxruntime.InferenceSession(
        VENDORED / LITE0 / "1" / "model.onnx", options, ["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(None, {"input": picture[None]})[0] for picture in pictures])


@pytest.mark.parametrize("in_flight", [1, 8, 32])
@pytest.mark.parametrize("method", ["infer", "infer_alone"])
async def test_the_vendored_model_gives_the_logits_of_onnxruntime(lite0, pictures, logits, in_flight, method) -> None:
    async with InferenceClient(lite0) as client:
        infer = getattr(client, method)
        answers = await asyncio.gather(*(infer(LITE0, {"input": picture[None]}) for picture in pictures[:in_flight]))
    np.testing.assert_allclose(np.concatenate([a["logits"] for a in answers]), logits[:in_flight], atol=1e-4)


async def test_a_caller_may_send_a_batch_of_its_own(lite0, pictures, logits) -> None:
    async with InferenceClient(lite0) as client:
        answer = await client.infer(LITE0, {"input": pictures[:8]})
    np.testing.assert_allclose(answer["logits"], logits[:8], atol=1e-4)


@pytest.mark.stack
async def test_a_thousand_requests_in_flight_on_one_stream_find_their_answers(client) -> None:
    answers = await asyncio.gather(
        *(client.infer("double", {"x": np.full((1, 2), number, np.float32)}) for number in range(1000))
    )
    assert [answer["y"][0, 0] for answer in answers] == [2 * number for number in range(1000)]


async def test_requests_of_different_shapes_are_grouped_by_shape(client, gate) -> None:
    gate.shut()
    widths = [3, 5, 3, 5, 3, 5]
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(client.infer("ragged", {"x": np.ones((1, w), np.float32)})) for w in widths]
        await gate.entered()
        gate.open()
    assert [task.result()["y"].shape for task in asked] == [(1, width) for width in widths]


async def test_only_the_outputs_asked_for_are_computed_and_sent(client) -> None:
    inputs = {"a": np.array([[5, 7]], np.float32), "b": np.array([[1, 2]], np.float32)}
    everything = await client.infer("pair", inputs)
    assert {name: array.tolist() for name, array in everything.items()} == {"sum": [[6, 9]], "difference": [[4, 5]]}
    assert list(await client.infer("pair", inputs, outputs=["difference"])) == ["difference"]


INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
SAMPLES = {
    "BOOL": np.array([[True, False]]),
    **{dtype.name.upper(): np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype) for dtype in INTEGERS},
    "FP16": np.array([[1.5, np.inf]], np.float16),
    "FP32": np.array([[1.5, np.nan]], np.float32),
    "FP64": np.array([[1e300, -0.0]], np.float64),
    "BYTES": np.array([["tea", "grüße"], ["", "\0x"]], np.object_),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES)
async def test_every_data_type_survives_the_way_there_and_back(client, kind) -> None:
    given = SAMPLES[kind]
    got = (await client.infer(f"identity_{kind}", {"x": given}))["y"]
    if kind == "BYTES":
        assert [element.decode() for element in got.ravel()] == given.ravel().tolist()
    else:
        assert got.dtype == given.dtype
        np.testing.assert_array_equal(got, given)


async def test_bf16_goes_in_as_its_bits_and_comes_back_as_floats(tiny) -> None:
    stub = GRPCInferenceServiceStub(tiny)
    request = pb.ModelInferRequest(model_name="identity_BF16")
    request.inputs.add(name="x", datatype="BF16", shape=[1, 2])
    request.raw_input_contents.append(np.array([0x3FC0, 0xC000], "<u2").tobytes())  # 1.5, -2
    response = await stub.ModelInfer(request)
    assert response.raw_output_contents[0] == request.raw_input_contents[0]
    async with InferenceClient(tiny) as client:
        ml_dtypes = pytest.importorskip("ml_dtypes")  # comes with onnx
        answer = await client.infer("identity_BF16", {"x": np.array([[1.5, -2]], ml_dtypes.bfloat16)})
    assert answer["y"].tolist() == [[1.5, -2]]


CONTENTS = {
    "BOOL": ("bool_contents", [True, False]), "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-5, 5]), "INT32": ("int_contents", [-5, 5]), "INT64": ("int64_contents", [-5, 5]),
    "UINT8": ("uint_contents", [0, 255]), "UINT16": ("uint_contents", [5, 6]), "UINT32": ("uint_contents", [5, 6]),
    "UINT64": ("uint64_contents", [5, 2**64 - 1]), "FP32": ("fp32_contents", [1.5, 2]),
    "FP64": ("fp64_contents", [1.5, 2]), "BYTES": ("bytes_contents", [b"a", b"bc"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTENTS)
async def test_typed_contents_say_the_same_as_raw_ones(tiny, client, kind) -> None:
    field, elements = CONTENTS[kind]
    request = pb.ModelInferRequest(model_name=f"identity_{kind}")
    getattr(request.inputs.add(name="x", datatype=kind, shape=[1, 2]).contents, field).extend(elements)
    response = await GRPCInferenceServiceStub(tiny).ModelInfer(request)
    raw = await client.infer(f"identity_{kind}", {"x": np.array([elements], SAMPLES[kind].dtype)})
    expected = pb.ModelInferRequest.InferInputTensor(name="x", datatype=kind, shape=[1, 2])
    assert list(response.outputs[0].shape) == list(expected.shape)
    assert len(response.raw_output_contents) == 1
    if kind != "BYTES":
        assert response.raw_output_contents[0] == raw["y"].tobytes()


async def test_an_empty_tensor_passes_where_the_model_allows_it(client) -> None:
    answer = await client.infer("identity_FP32", {"x": np.empty((0, 3), np.float32)})
    assert answer["y"].shape == (0, 3)


async def test_big_endian_and_strided_arrays_arrive_as_they_read(client) -> None:
    given = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert (await client.infer("identity_FP32", {"x": given}))["y"].tolist() == given.tolist()


async def test_the_server_tells_about_itself_and_its_models(lite0) -> None:
    stub = GRPCInferenceServiceStub(lite0)
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name=LITE0))).ready
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name=LITE0, version="2"))).ready
    assert "onnxruntime(CPUExecutionProvider)" in (await stub.ServerMetadata(pb.ServerMetadataRequest())).extensions
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=LITE0))
    assert list(metadata.versions) == ["1"]
    assert list(metadata.inputs[0].shape) == [-1, 3, 224, 224]
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name=LITE0))).config
    assert config.parameters["execution_providers"].string_value == "CPUExecutionProvider"
    assert config.max_batch_size == 8
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    assert [(entry.name, entry.version, entry.state) for entry in index.models] == [(LITE0, "1", "READY")]


async def test_the_statistics_count_what_ran(lite0, pictures) -> None:
    stub = GRPCInferenceServiceStub(lite0)

    async def counters() -> pb.ModelStatistics:
        return (await stub.ModelStatistics(pb.ModelStatisticsRequest(name=LITE0))).model_stats[0]

    before = await counters()
    async with InferenceClient(lite0) as client:
        await client.infer(LITE0, {"input": pictures[:3]})
    after = await counters()
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert 3 in {size.batch_size for size in after.batch_stats}
