"""The REST twin answers as Triton's does: JSON and tensors as bytes behind it in, the same out, errors as sentences."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from mediamesh.client import connect
from mediamesh.inference.rest.answers import pieces
from mediamesh.inference.rest.elements import elements_of, raw_of
from mediamesh.inference.rest.requests import infer_request
from mediamesh.wire.errors import InvalidRequest
from tests.inference import models
from tests.inference.conftest import inference_server
from tests.inference.edge import Answer, Edge
from tests.inference.repeat import add_repeat, repeat_backend

LENGTH = "inference-header-content-length"


@pytest.fixture
def edge(tiny) -> Edge:
    return Edge(tiny)


def tensor(data, shape=(1, 2), datatype="FP32", name="x", **parameters) -> dict[str, Any]:
    given: dict[str, Any] = {"name": name, "shape": list(shape), "datatype": datatype}
    given |= {"data": data} if data is not None else {}
    return given | ({"parameters": parameters} if parameters else {})


async def infer(edge: Edge, model: str, *inputs: dict[str, Any], behind: bytes = b"", **rest) -> Answer:
    head = json.dumps({"inputs": list(inputs), **rest}).encode()
    return await edge("ModelInfer", model, body=head + behind, headers={LENGTH: str(len(head))} if behind else {})


async def test_the_server_says_what_it_is_and_how_it_is(edge) -> None:
    live = await edge("ServerLive")
    assert (live.status, live.body) == (200, b"")
    assert (await edge("ServerReady")).status == 200
    about = (await edge("ServerMetadata")).json
    assert about["name"] == "mediamesh"
    assert {"binary_tensor_data", "system_shared_memory", "classification"} <= set(about["extensions"])


async def test_a_model_says_what_it_is_and_how_it_is(edge) -> None:
    assert (await edge("ModelReady", "double", version="1")).status == 200
    assert (await edge("ModelReady", "double", version="2")).status == 400
    about = (await edge("ModelMetadata", "double")).json
    assert about["versions"] == ["1"]
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    config = (await edge("ModelConfig", "labelled")).json
    assert (config["max_batch_size"], config["name"]) == (8, "labelled")
    assert config["input"][0] | {"name": "x", "data_type": "TYPE_FP32", "dims": [3]} == config["input"][0]
    unknown = await edge("ModelConfig", "nobody")
    assert unknown.status == 404
    assert "There is no model 'nobody'" in unknown.error


async def test_counters_are_numbers(edge) -> None:
    await infer(edge, "double", tensor([1, 2]))
    [stats] = (await edge("ModelStatistics", "double")).json["model_stats"]
    assert stats["inference_count"] > 0
    assert stats["inference_stats"]["success"]["count"] > 0
    assert len((await edge("ModelStatistics")).json["model_stats"]) > 10


async def test_the_index_lists_models(edge) -> None:
    index = (await edge("RepositoryIndex", body={"ready": True})).json
    assert {"name": "double", "version": "1", "state": "READY"} in index
    assert len((await edge("RepositoryIndex")).json) >= len(index)
    assert (await edge("RepositoryIndex", body={"ready": "yes"})).status == 400


async def test_tensors_in_json_come_back_in_json(edge) -> None:
    answer = await infer(edge, "double", tensor([1.5, -2]), id="seven", parameters={"mark": "m"})
    assert answer.content_type == "application/json"
    assert LENGTH not in answer.headers
    assert answer.json == {
        "id": "seven",
        "model_name": "double",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, -4.0]}],
    }
    nested = await infer(edge, "double", tensor([[1], [2]], (2, 1)), tensor([[[3, 4]]], (1, 2)))
    assert nested.status == 400
    assert (await infer(edge, "double", tensor([[1, 2], [3, 4]], (2, 2)))).json["outputs"][0]["data"] == [2, 4, 6, 8]


async def test_tensors_as_bytes_come_back_as_bytes_where_asked(edge) -> None:
    behind = np.array([1.5, -2], np.float32).tobytes()
    answer = await infer(
        edge, "double", tensor(None, binary_data_size=8), behind=behind, parameters={"binary_data_output": True}
    )
    length = int(answer.headers[LENGTH])
    assert answer.content_type == "application/octet-stream"
    assert json.loads(answer.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(answer.body[length:], np.float32).tolist() == [3, -4]


async def test_each_input_and_output_has_a_form_of_its_own(edge) -> None:
    answer = await infer(
        edge,
        "pair",
        tensor(None, name="b", binary_data_size=8),
        tensor([1, 1], name="a"),
        behind=np.array([2, 3], np.float32).tobytes(),
        outputs=[{"name": "sum"}, {"name": "difference", "parameters": {"binary_data": True}}],
    )
    length = int(answer.headers[LENGTH])
    total, difference = json.loads(answer.body[:length])["outputs"]
    assert total["data"] == [3, 4]
    assert difference["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(answer.body[length:], np.float32).tolist() == [-1, -2]


async def test_a_large_tensor_passes_in_pieces(edge) -> None:
    given = np.random.default_rng(3).standard_normal((700, 1000), np.float32)
    answer = await infer(
        edge,
        "identity_FP32",
        tensor(None, given.shape, binary_data_size=given.nbytes),
        behind=given.tobytes(),
        parameters={"binary_data_output": True},
    )
    assert answer.body[int(answer.headers[LENGTH]) :] == given.tobytes()


async def test_a_body_of_bytes_alone_is_the_only_input(edge) -> None:
    answer = await edge("ModelInfer", "double", body=np.arange(4, dtype=np.float32).tobytes(), headers={LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [2, 2]
    assert np.frombuffer(answer.body[length:], np.float32).tolist() == [0, 2, 4, 6]
    text = await edge("ModelInfer", "identity_BYTES", body="grüße".encode(), headers={LENGTH: "0"})
    assert text.body[int(text.headers[LENGTH]) :] == struct.pack("<I", 7) + "grüße".encode()
    several = await edge("ModelInfer", "pair", body=b"1234", headers={LENGTH: "0"})
    assert "has 2 inputs, expected one" in several.error
    assert (await edge("ModelInfer", "double", body=b"123", headers={LENGTH: "0"})).status == 400


async def test_classes_come_as_texts(edge) -> None:
    answer = await infer(
        edge,
        "labelled",
        tensor([1, 3, 2], (1, 3)),
        outputs=[{"name": "y", "parameters": {"classification": 2}}],
    )
    assert answer.json["outputs"] == [
        {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["6.000000:1:bee", "4.000000:2"]}
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("INT8", [-128, 127]),
        ("UINT16", [0, 65535]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [0.5, -65504]),
        ("BF16", [1.5, -(2.0**100)]),
        ("FP32", [0.25, -(2.0**100)]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", ["tea", "grüße"]),
    ],
)
async def test_every_type_passes_in_json(edge, kind, data) -> None:
    answer = await infer(edge, f"identity_{kind}", tensor(data, datatype=kind))
    assert answer.json["outputs"][0]["data"] == data, answer.body


async def test_what_is_not_finite_is_data(edge) -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[NaN,Infinity,-Infinity]}]}'
    answer = await edge("ModelInfer", "identity_FP32", body=body)
    assert b'"data":[NaN,Infinity,-Infinity]' in answer.body


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (tensor([1]), r"model double: input 'x' \(FP32 \[1, 2\]\) holds 1 elements, expected 2"),
        (tensor([1, "a"]), 'holds "a", expected numbers'),
        (tensor([1, None]), "holds null, expected numbers"),
        (tensor([True, False]), "holds true, expected numbers"),
        (tensor([1, [2]]), "lists of different lengths"),
        (tensor([1, 1e39]), r"holds an element beyond 3\.40"),
        (tensor([[1], [2]]), r"nested as \[2, 1\], expected \[1, 2\] or a flat list"),
        (tensor({"a": 1}), 'holds {"a": 1} as data, expected a list'),
        (tensor([1, 2, 3], (1, 3)), r"inputs\[0\].shape: model double/1: input 'x' has shape \[1, 3\], expected"),
        (tensor([1, 2], datatype="INT32"), "'INT32', expected FP32"),
        (tensor([1, 2], datatype="FP31"), "is 'FP31', expected one of BOOL"),
        (tensor([], (0, 2)), "the batch has 0 items, expected 1 to 8"),
        (tensor([1, 2], (-1, 2)), r"expected a list of at most 16 sizes"),
        (tensor([1, 2], (1.0, 2)), r"expected a list of at most 16 sizes"),
        (tensor([1, 2], [2] * 17), r"expected a list of at most 16 sizes"),
        (tensor([1, 2], name="z"), "has no input 'z'; it takes 'x'"),
        (tensor([1, 2]) | {"name": 3}, r"inputs\[0\].name: model double: is 3, expected a text"),
        (tensor([1, 2], colour=[1]), "parameter 'colour' is \\[1\\], expected a text"),
        (tensor([1, 2], binary_data_size=8), "has binary_data_size and data, expected one of"),
        (tensor(None), "has no elements, expected one of data, binary_data_size and shared_memory_region"),
        (tensor(None, binary_data_size=8), r"has 8, expected 0 to 0: the bytes left behind the JSON"),
        (tensor([1, 2]) | {"dtype": "FP32"}, r"inputs\[0\].dtype: model double: is unknown; expected data, datatype"),
        (7, r"inputs\[0\]: model double: is 7, expected an object"),
    ],
    ids=str,
)
async def test_an_input_that_does_not_fit_is_named_with_what_was_expected(edge, given, sentence) -> None:
    answer = await infer(edge, "double", given)
    assert answer.status == 400
    with pytest.raises(InvalidRequest, match=sentence):
        raise InvalidRequest(answer.error)


def test_more_texts_than_are_read_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 BYTES elements, 2 at most"):
        raw_of("BYTES", [1, 3], [["a", "b", "c"]], 2)


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("UINT8", [256, 0], "outside of 0 to 255"),
        ("INT8", [1.5, 0], "holds 1.5, expected whole numbers"),
        ("UINT64", [2**64, 0], "outside of 0 to 18446744073709551615"),
        ("INT64", [-(2**63) - 1, 0], "outside of -9223372036854775808 to"),
        ("BOOL", [2, 0], "neither true nor false"),
        ("BYTES", ["a", 7], "holds 7, expected texts"),
        ("BYTES", ["a", "b", "c", 7], "holds more than 2 elements"),
        ("BYTES", ["a", "\ud800"], "half a character"),
        ("FP16", [1e5, 0], "beyond 65504"),
        ("BF16", [3.4e38, 0], "beyond 3.39e"),
    ],
    ids=str,
)
def test_an_element_that_its_type_cannot_hold_is_refused(kind, data, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        raw_of(kind, [1, 2], data)


@pytest.mark.parametrize(
    ("body", "headers", "sentence"),
    [
        (b"", {}, "lacks input 'x'"),
        (b"{", {}, "the body must be JSON: Expecting property name"),
        (b"\xff", {}, "must be UTF-8; byte 0 is not"),
        (b"[1]", {}, r"the body: model double: is \[1\], expected an object"),
        (b"[" * 100_000, {}, "the body must be JSON"),
        (b'{"inputs":{}}', {}, "inputs: model double: is {}, expected a list"),
        (b'{"input":[]}', {}, "input: model double: is unknown; expected id, inputs"),
        (b'{"parameters":{"binary_data_output":1}}', {}, "is 1, expected true or false"),
        (b'{"id":"\\ud800"}', {}, "expected a text"),
        (b'{"parameters":{"\\ud800":true}}', {}, "a name that UTF-8 cannot carry"),
        (b'{"outputs":[{"name":"z"}],"inputs":[]}', {}, "lacks input"),
        (b"{}12345678", {LENGTH: "2"}, "8 bytes stand behind the JSON, and binary_data_size of all inputs is 0"),
        (b"{}", {LENGTH: "3"}, "is 3, and the body has 2 bytes"),
        (b"{}", {LENGTH: "-1"}, "is '-1', expected a number"),
    ],
    ids=str,
)
async def test_a_body_that_is_no_request_is_refused(edge, body, headers, sentence) -> None:
    answer = await edge("ModelInfer", "double", body=body, headers=headers)
    assert answer.status == 400
    with pytest.raises(InvalidRequest, match=sentence):
        raise InvalidRequest(answer.error)


async def test_a_compressed_body_is_refused_with_a_sentence(edge) -> None:
    answer = await edge("ModelInfer", "double", body=b"{}", headers={"content-encoding": "gzip"})
    assert answer.status == 415
    assert answer.error == "Bodies with Content-Encoding 'gzip' are not read; send them as they are."
    assert (await edge("LogSettings", body=b"{}", headers={"content-encoding": "br"})).status == 415


async def test_a_body_or_json_that_is_too_long_is_refused(tiny_repository) -> None:
    async with (
        inference_server(tiny_repository, max_message_bytes=200_000, rest_json_bytes=1024) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        edge = Edge(channel)
        answer = await edge("ModelInfer", "double", body=b" " * 200_001)
        assert (answer.status, answer.error) == (413, "model double: the body has more than 200000 bytes.")
        answer = await edge("ModelInfer", "double", body=b" " * 1025)
        assert answer.status == 413
        assert "1025 bytes are more JSON than the 1024 that are read; send tensors as binary data" in answer.error
        assert (await infer(edge, "double", tensor([1, 2]))).status == 200


async def test_models_are_loaded_and_unloaded(tmp_path) -> None:
    models.add_model(tmp_path, "double", models.double())
    async with (
        inference_server(tmp_path, model_control="explicit") as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        edge = Edge(channel)
        assert (await edge("RepositoryModelLoad", "double", body={})).status == 200
        assert (await edge("ModelReady", "double")).status == 200
        unloaded = await edge("RepositoryModelUnload", "double", body={"parameters": {"unload_dependents": False}})
        assert unloaded.status == 200, unloaded.body
        assert (await edge("ModelReady", "double")).status == 400
        model = base64.b64encode(models.double()).decode()
        override = {"config": json.dumps({"max_batch_size": 4}), "file:1/model.onnx": model}
        loaded = await edge("RepositoryModelLoad", "double", body={"parameters": override})
        assert loaded.status == 200, loaded.body
        assert (await edge("ModelConfig", "double")).json["max_batch_size"] == 4
        broken = await edge("RepositoryModelLoad", "double", body={"parameters": {"file:1/model.onnx": "?"}})
        assert broken.status == 400
        assert "must be a file in base64" in broken.error
        assert (await edge("RepositoryModelLoad", "nobody", body={})).status in {400, 404}


async def test_shared_memory_is_registered_listed_and_forgotten(edge) -> None:
    missing = await edge("SystemSharedMemoryRegister", "r", body={"key": "/mediamesh-none", "byte_size": 8})
    assert missing.status == 400
    assert "there is no shared memory '/mediamesh-none'" in missing.error
    wrong = await edge("SystemSharedMemoryRegister", "r", body={"key": "/x", "byte_size": "8"})
    assert "byte_size: region 'r': is \"8\", expected a number of bytes" in wrong.error
    assert (await edge("SystemSharedMemoryStatus")).json == []
    assert (await edge("SystemSharedMemoryStatus", "r")).status == 404
    assert (await edge("SystemSharedMemoryUnregister", "r")).status == 200
    assert (await edge("SystemSharedMemoryUnregister")).status == 200
    assert (await edge("CudaSharedMemoryStatus")).json == []
    assert (await edge("CudaSharedMemoryRegister", "gpu", body={"byte_size": 8})).status == 501
    assert (await edge("CudaSharedMemoryUnregister")).status == 200


async def test_settings_are_read_and_refused_over_http_too(edge) -> None:
    logs = (await edge("LogSettings")).json
    assert logs["log_file"] == ""
    assert set(logs) == {"log_error", "log_file", "log_format", "log_info", "log_verbose_level", "log_warning"}
    assert (await edge("LogSettings", body={"log_format": "ISO8601"})).status == 501
    assert (await edge("LogSettings", body={"log_info": None})).status == 400
    traces = (await edge("TraceSetting")).json
    assert (traces["trace_level"], traces["trace_mode"]) == (["OFF"], "opentelemetry")
    assert (await edge("TraceSetting", "double", body={"trace_level": ["TIMESTAMPS"]})).status == 501
    assert (await edge("TraceSetting", body={"trace_rate": {}})).status == 400


@pytest.fixture(scope="module")
def repeaters() -> Iterator[None]:
    with repeat_backend():
        yield


@pytest.fixture(scope="module")
async def repeating(repeaters, tmp_path_factory) -> AsyncIterator[Edge]:
    repository = tmp_path_factory.mktemp("repeat")
    add_repeat(repository)
    models.add_model(repository, "identity_BYTES", models.identity("BYTES"))
    async with inference_server(repository) as port, connect(f"127.0.0.1:{port}") as channel:
        yield Edge(channel)


def events(answer: Answer) -> list[Any]:
    parts = answer.body.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [json.loads(part.removeprefix("data: ")) for part in parts]


async def test_answers_stream_as_events(repeating) -> None:
    answer = await repeating("GenerateStream", "repeat", body={"x": 3, "id": "q", "times": 3})
    assert (answer.status, answer.content_type) == (200, "text/event-stream; charset=utf-8")
    assert answer.headers["cache-control"] == "no-cache"
    assert len(events(answer)) == 3
    assert events(answer)[0] | {"model_name": "repeat", "id": "q"} == events(answer)[0]
    assert events(await repeating("GenerateStream", "repeat", body={"x": 3, "times": 0, "parameters": {"a": 1}})) == []


async def test_an_error_before_the_first_event_is_a_status_and_one_after_it_an_event(repeating) -> None:
    wrong = await repeating("GenerateStream", "repeat", body={"x": "three"})
    assert wrong.status == 400
    assert "input 'x'" in wrong.error
    late = await repeating("GenerateStream", "repeat", body={"x": 3, "times": -2})
    assert late.status == 200
    assert list(events(late)[-1]) == ["error"]


async def test_generate_wants_exactly_one_answer(repeating) -> None:
    one = await repeating("Generate", "repeat", body={"x": 3, "times": 1})
    assert one.status == 200, one.body
    for times, sentence in ((0, "gave no answer"), (2, "gave more than one answer")):
        answer = await repeating("Generate", "repeat", body={"x": 3, "times": times})
        assert answer.status == 400
        assert sentence in answer.error
    texts = await repeating("Generate", "identity_BYTES", body={"x": "grüße"})
    assert texts.json == {"model_name": "identity_BYTES", "model_version": "1", "y": "grüße"}
    assert (await repeating("Generate", "identity_BYTES", body={"x": ["a", "b"]})).json["y"] == ["a", "b"]
    assert "parameter 'z' is [1]" in (await repeating("Generate", "identity_BYTES", body={"x": "a", "z": [1]})).error


async def test_many_requests_at_once_get_their_own_answers(edge) -> None:
    answers = await asyncio.gather(*(infer(edge, "double", tensor([n, 0]), id=str(n)) for n in range(50)))
    assert {answer.json["id"]: answer.json["outputs"][0]["data"][0] for answer in answers} == {
        str(n): 2.0 * n for n in range(50)
    }


@pytest.mark.parametrize("value", [np.nan, 1.0, 3.14159, -1e-40, 3.38e38, 1.00390625])
def test_bf16_is_rounded_to_the_nearest(value) -> None:
    raw = bytes(raw_of("BF16", [1], [float(value)]))
    [back] = elements_of("BF16", [1], raw)
    if np.isnan(value):
        assert np.isnan(back)
    for step in (-1, 1):
        other = (int.from_bytes(raw, "little") + step) % 65536
        [neighbour] = elements_of("BF16", [1], other.to_bytes(2, "little"))
        assert np.isnan(value) or np.isnan(neighbour) or abs(value - back) <= abs(value - neighbour)


def test_raw_contents_stay_views_of_the_body() -> None:
    head = json.dumps({"inputs": [tensor(None, binary_data_size=8)]}).encode()
    body = head + bytes(8)
    [raw] = infer_request("double", "", memoryview(body), len(head)).request.raw
    assert isinstance(raw, memoryview)
    assert raw.obj is body


def test_answers_are_cut_into_pieces_and_small_parts_put_together() -> None:
    parts = [b"head", b"a" * 300_000, b"b" * 10]
    cut = list(pieces(parts))
    assert b"".join(cut) == b"".join(parts)
    assert max(map(len, cut)) <= 256 * 1024
    assert len(cut) == 2
    assert list(pieces([b"{}"])) == [b"{}"]


def test_a_value_too_long_to_quote_is_cut_short() -> None:
    with pytest.raises(InvalidRequest) as raised:
        infer_request("m", "", memoryview(json.dumps({"inputs": "x" * 10_000}).encode()), None)
    assert len(str(raised.value)) < 200
