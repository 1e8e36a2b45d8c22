"""Calls a server with Triton's own client; run by a test in an environment of its own, as its descriptors are ours too.

Usage: triton_client.py FEATURE GRPC_ADDRESS HTTP_ADDRESS. Prints ``ok`` when everything was as it should be. A feature
is the name of a function here; those that begin with ``http_`` go through the door.
"""
# mypy: disable-error-code="import-not-found"
# pyright: reportMissingImports=false

from __future__ import annotations

import queue
import sys
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as grpc_triton
import tritonclient.http as http_triton
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as triton_memory

ONES = np.ones((1, 2), np.float32)


def tensor(name: str, array: np.ndarray, datatype: str, kind: Any = grpc_triton, **how) -> Any:
    given = kind.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, **how)
    return given


def refused(call, *sentences: str) -> None:
    said = "nothing was refused"
    try:
        call()
    except InferenceServerException as error:
        said = error.message()
    assert all(sentence in said for sentence in sentences), said


def infer(client) -> None:
    answer = client.infer("double", [tensor("x", np.array([[1, 2]], np.float32), "FP32")], request_id="seven")
    assert answer.as_numpy("y").tolist() == [[2, 4]]
    assert answer.get_response().id == "seven"
    pair = [tensor(name, ONES, "FP32") for name in ("a", "b")]
    answer = client.infer("pair", pair, outputs=[grpc_triton.InferRequestedOutput("difference")])
    assert [output.name for output in answer.get_response().outputs] == ["difference"]


def async_infer(client) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for number in range(20):
        given = [tensor("x", np.full((1, 2), number, np.float32), "FP32")]
        client.async_infer("double", given, lambda result, error: answers.put((result, error)), request_id=str(number))
    got = {}
    for _ in range(20):
        result, error = answers.get(timeout=30)
        assert error is None, error
        got[int(result.get_response().id)] = float(result.as_numpy("y")[0, 0])
    assert got == {number: 2.0 * number for number in range(20)}


def stream(client) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(100):
        given = np.full((1, 3 if number == 50 else 2), number, np.float32)
        client.async_stream_infer("double", [tensor("x", given, "FP32")], request_id=str(number))
    failed, doubled = [], {}
    for _ in range(100):
        result, error = answers.get(timeout=30)
        if error is not None:
            failed.append(error.message())
        else:
            doubled[int(result.get_response().id)] = float(result.as_numpy("y")[0, 0])
    client.stop_stream()
    assert len(failed) == 1, failed
    assert "expected [-1, 2]" in failed[0]
    assert doubled == {number: 2.0 * number for number in range(100) if number != 50}
    assert list(doubled) == sorted(doubled)  # in the order of the requests, as Triton answers


def texts(client) -> None:
    given = np.array([[b"tea", "grüße".encode(), b""]], np.object_)
    assert client.infer("identity_BYTES", [tensor("x", given, "BYTES")]).as_numpy("y").tolist() == given.tolist()


def types(client) -> None:
    kinds = {"BOOL": np.bool_, "UINT8": np.uint8, "INT16": np.int16, "INT64": np.int64, "FP16": np.float16}
    for name, dtype in kinds.items():
        given: Any = np.array([[0, 1]], dtype)
        assert client.infer(f"identity_{name}", [tensor("x", given, name)]).as_numpy("y").tolist() == given.tolist()
    given = np.array([[0.5, -3]], ml_dtypes.bfloat16)
    assert client.infer("identity_BF16", [tensor("x", given, "BF16")]).as_numpy("y").tolist() == given.tolist()


def classification(client) -> None:
    asked = [grpc_triton.InferRequestedOutput("y", class_count=2)]
    answer = client.infer("labelled", [tensor("x", np.array([[1, 3, 2]], np.float32), "FP32")], outputs=asked)
    assert answer.as_numpy("y").tolist() == [[b"6.000000:1:bee", b"4.000000:2"]]


def sequence(client) -> None:
    totals = []
    for number in (1, 2, 3):
        given = [tensor("x", np.full((1, 1), number, np.float32), "FP32")]
        marks = {"sequence_start": number == 1, "sequence_end": number == 3}
        totals.append(float(client.infer("total", given, sequence_id=42, **marks).as_numpy("y")[0, 0]))
    assert totals == [1, 3, 6], totals
    lone = [tensor("x", np.ones((1, 1), np.float32), "FP32")]
    refused(lambda: client.infer("total", lone, sequence_id=43), "START")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in (10, 20):
        given = [tensor("x", np.full((1, 1), number, np.float32), "FP32")]
        marks = {"sequence_start": number == 10, "sequence_end": number == 20}
        client.async_stream_infer("total", given, sequence_id="a text", **marks)
    got = [answers.get(timeout=30) for _ in range(2)]
    client.stop_stream()
    assert [float(result.as_numpy("y")[0, 0]) for result, _ in got] == [10, 30], got


def decoupled(client) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    given = [tensor("x", np.ones(1, np.float32), "FP32"), tensor("times", np.array([3], np.int32), "INT32")]
    client.async_stream_infer("repeat", given, request_id="q", enable_empty_final_response=True)
    finals: list[bool] = []
    indices: list[int] = []
    while not (finals and finals[-1]):
        result, error = answers.get(timeout=30)
        assert error is None, error
        response = result.get_response()
        finals.append(response.parameters["triton_final_response"].bool_param)
        if response.outputs:
            indices.append(int(result.as_numpy("index")[0]))
    client.stop_stream()
    assert indices == [0, 1, 2]
    assert finals == [False, False, False, True]


def model_control(client) -> None:
    client.load_model("controlled")
    assert client.is_model_ready("controlled")
    states = {model.name: model.state for model in client.get_model_repository_index().models}
    assert states["controlled"] == "READY"
    client.load_model("controlled", config='{"max_batch_size": 4}')
    assert client.get_model_config("controlled").config.max_batch_size == 4
    client.unload_model("controlled")
    assert not client.is_model_ready("controlled")
    refused(lambda: client.load_model("nobody"), "nobody")


def statistics(client) -> None:
    client.infer("double", [tensor("x", ONES, "FP32")])
    stats = client.get_inference_statistics("double").model_stats[0]
    assert stats.inference_count > 0
    assert stats.inference_stats.success.ns > 0
    assert len(client.get_inference_statistics().model_stats) > 5


def metadata(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert not client.is_model_ready("nobody")
    about = client.get_server_metadata()
    assert about.name == "mediamesh"
    assert "system_shared_memory" in about.extensions
    assert client.get_model_metadata("double").inputs[0].name == "x"
    assert client.get_model_config("double").config.max_batch_size == 8


def errors(client) -> None:
    wrong = [tensor("x", np.ones((1, 3), np.float32), "FP32")]
    refused(lambda: client.infer("double", wrong), "double/1", "'x'", "[1, 3]", "expected [-1, 2]")
    refused(lambda: client.infer("nobody", wrong), "no model 'nobody'")
    refused(lambda: client.infer("double", [tensor("x", np.ones((9, 2), np.float32), "FP32")]), "expected 1 to 8")
    refused(lambda: client.register_cuda_shared_memory("gpu", b"", 0, 8), "CUDA")


def shared_memory(client, kind: Any = grpc_triton) -> None:
    name = f"mediamesh-triton-{kind.__name__.rpartition('.')[2]}"
    memory = triton_memory.create_shared_memory_region("r", name, 64)
    try:
        triton_memory.set_shared_memory_region(memory, [np.array([[1, 2]], np.float32)])
        client.register_system_shared_memory(name, name, 64)
        status = client.get_system_shared_memory_status()
        listed = list(status.regions) if kind is grpc_triton else [region["name"] for region in status]
        assert name in listed, status
        refused(lambda: client.register_system_shared_memory(name, name, 64), "already")
        refused(lambda: client.register_system_shared_memory("long", name, 1 << 30), "expected")
        given = kind.InferInput("x", [1, 2], "FP32")
        given.set_shared_memory(name, 8)
        wanted = kind.InferRequestedOutput("y")
        wanted.set_shared_memory(name, 8, offset=32)
        client.infer("double", [given], outputs=[wanted])
        assert triton_memory.get_contents_as_numpy(memory, np.float32, [1, 2], offset=32).tolist() == [[2, 4]]
        client.unregister_system_shared_memory(name)
        refused(lambda: client.infer("double", [given]), "not registered")
    finally:
        triton_memory.destroy_shared_memory_region(memory)


def settings(client) -> None:
    logs = client.get_log_settings().settings
    assert logs["log_error"].bool_param
    client.update_log_settings({"log_verbose_level": 0, "log_error": True})
    refused(lambda: client.update_log_settings({"log_file": "/tmp/somewhere"}), "log_file")
    assert client.get_trace_settings().settings["trace_mode"].value[0] == "opentelemetry"
    refused(lambda: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}), "TIMESTAMPS or OFF")


def http_infer(client) -> None:
    array = np.array([[1, 2]], np.float32)
    for binary_in in (True, False):
        for binary_out in (True, False):
            given = [tensor("x", array, "FP32", http_triton, binary_data=binary_in)]
            wanted = [http_triton.InferRequestedOutput("y", binary_data=binary_out)]
            answer = client.infer("double", given, outputs=wanted, request_id="seven", model_version="1")
            assert answer.as_numpy("y").tolist() == [[2, 4]]
            assert answer.get_response()["id"] == "seven"
    assert client.infer("double", [tensor("x", array, "FP32", http_triton)]).as_numpy("y").tolist() == [[2, 4]]


def http_async_infer(client) -> None:
    asked = [
        client.async_infer("double", [tensor("x", np.full((1, 2), number, np.float32), "FP32", http_triton)])
        for number in range(20)
    ]
    got = [float(request.get_result(timeout=30).as_numpy("y")[0, 0]) for request in asked]
    assert got == [2.0 * number for number in range(20)]


def http_texts(client) -> None:
    given = np.array([[b"tea", "grüße".encode()]], np.object_)
    for binary in (True, False):
        asked = [tensor("x", given, "BYTES", http_triton, binary_data=binary)]
        wanted = [http_triton.InferRequestedOutput("y", binary_data=binary)]
        answer = client.infer("identity_BYTES", asked, outputs=wanted).as_numpy("y")
        assert [text if isinstance(text, bytes) else text.encode() for text in answer.ravel()] == given.ravel().tolist()


def http_types(client) -> None:
    for name, dtype in {"BOOL": np.bool_, "UINT8": np.uint8, "INT64": np.int64, "FP16": np.float16}.items():
        given: Any = np.array([[0, 1]], dtype)
        answer = client.infer(f"identity_{name}", [tensor("x", given, name, http_triton)])
        assert answer.as_numpy("y").tolist() == given.tolist()


def http_classification(client) -> None:
    asked = [tensor("x", np.array([[1, 3, 2]], np.float32), "FP32", http_triton)]
    for binary in (True, False):
        wanted = [http_triton.InferRequestedOutput("y", binary_data=binary, class_count=2)]
        answer = client.infer("labelled", asked, outputs=wanted).as_numpy("y").ravel().tolist()
        assert [text if isinstance(text, bytes) else text.encode() for text in answer] == [
            b"6.000000:1:bee",
            b"4.000000:2",
        ]


def http_sequence(client) -> None:
    totals = []
    for number in (1, 2, 3):
        given = [tensor("x", np.full((1, 1), number, np.float32), "FP32", http_triton)]
        marks = {"sequence_start": number == 1, "sequence_end": number == 3}
        totals.append(float(client.infer("total", given, sequence_id=77, **marks).as_numpy("y")[0, 0]))
    assert totals == [1, 3, 6], totals


def http_model_control(client) -> None:
    client.load_model("controlled")
    assert client.is_model_ready("controlled")
    assert {"name": "controlled", "version": "1", "state": "READY"} in client.get_model_repository_index()
    with open(sys.argv[4], "rb") as file:  # noqa: PTH123 - the name comes from the test
        client.load_model("controlled", config='{"max_batch_size": 2}', files={"file:1/model.onnx": file.read()})
    assert client.get_model_config("controlled")["max_batch_size"] == 2
    client.unload_model("controlled")
    assert not client.is_model_ready("controlled")
    refused(lambda: client.load_model("nobody"), "nobody")


def http_statistics(client) -> None:
    client.infer("double", [tensor("x", ONES, "FP32", http_triton)])
    [stats] = client.get_inference_statistics("double")["model_stats"]
    assert stats["inference_count"] > 0
    assert len(client.get_inference_statistics()["model_stats"]) > 5


def http_metadata(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "mediamesh"
    about = client.get_model_metadata("double")
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert client.get_model_config("double", "1")["max_batch_size"] == 8


def http_shared_memory(client) -> None:
    shared_memory(client, http_triton)


def http_settings(client) -> None:
    assert client.get_log_settings()["log_error"] is True
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0
    refused(lambda: client.update_log_settings({"log_format": "ISO8601"}), "log_format")
    assert client.get_trace_settings()["trace_mode"] == "opentelemetry"
    assert client.get_trace_settings("double")["trace_level"] == ["OFF"]
    refused(lambda: client.update_trace_settings(settings={"trace_rate": "many"}), "expected one number")


def http_errors(client) -> None:
    wrong = [tensor("x", np.ones((1, 3), np.float32), "FP32", http_triton)]
    refused(lambda: client.infer("double", wrong), "double/1", "'x'", "[1, 3]", "expected [-1, 2]")
    refused(lambda: client.infer("nobody", wrong), "no model 'nobody'")
    good = [tensor("x", ONES, "FP32", http_triton)]
    refused(lambda: client.infer("double", good, request_compression_algorithm="gzip"), "Content-Encoding 'gzip'")
    assert client.infer("double", good, response_compression_algorithm="gzip").as_numpy("y").tolist() == [[2, 2]]


def http_large(client) -> None:
    given = np.random.default_rng(1).standard_normal((1000, 8000)).astype(np.float32)  # 32 MB
    answer = client.infer("identity_FP32", [tensor("x", given, "FP32", http_triton)])
    assert np.array_equal(answer.as_numpy("y"), given)


if __name__ == "__main__":
    feature, grpc_address, http_address = sys.argv[1:4]
    if feature.startswith("http_"):
        with http_triton.InferenceServerClient(http_address, concurrency=4) as http_client:
            globals()[feature](http_client)
    else:
        with grpc_triton.InferenceServerClient(grpc_address) as grpc_client:
            globals()[feature](grpc_client)
    sys.stdout.write("ok\n")
