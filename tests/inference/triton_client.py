"""Calls a server with Triton's own client; run by a test in an environment of its own, as its descriptors are ours too.

Usage: triton_client.py HOST:PORT. Prints ``ok`` when everything was as it should be.
"""

from __future__ import annotations

import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
from tritonclient.utils import (  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    InferenceServerException,
)


def tensor(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def unary(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert client.get_server_metadata().name == "mediamesh"
    assert client.get_model_metadata("double").inputs[0].name == "x"
    assert client.get_model_config("double").config.max_batch_size == 8
    answer = client.infer("double", [tensor("x", np.array([[1, 2]], np.float32), "FP32")], request_id="seven")
    assert answer.as_numpy("y").tolist() == [[2, 4]]
    assert answer.get_response().id == "seven"
    texts = np.array([[b"tea", "grüße".encode()]], np.object_)
    answer = client.infer("identity_BYTES", [tensor("x", texts, "BYTES")])
    assert answer.as_numpy("y").tolist() == texts.tolist()
    asked = [triton.InferRequestedOutput("difference")]
    pair = [tensor(name, np.ones((1, 2), np.float32), "FP32") for name in ("a", "b")]
    assert [output.name for output in client.infer("pair", pair, outputs=asked).get_response().outputs] == [
        "difference"
    ]
    assert client.get_inference_statistics("double").model_stats[0].inference_count > 0
    assert "double" in {model.name for model in client.get_model_repository_index().models}
    refusal = ""
    try:
        client.infer("double", [tensor("x", np.ones((1, 3), np.float32), "FP32")])
    except InferenceServerException as error:
        refusal = error.message()
    assert "expected [-1, 2]" in refusal


def stream(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(100):
        given = np.full((1, 3 if number == 50 else 2), number, np.float32)
        client.async_stream_infer("double", [tensor("x", given, "FP32")], request_id=str(number))
    failed, doubled = [], {}
    for _ in range(100):
        result, error = answers.get(timeout=20)
        if error is not None:
            failed.append(error.message())
        else:
            doubled[int(result.get_response().id)] = float(result.as_numpy("y")[0, 0])
    client.stop_stream()
    assert len(failed) == 1, failed
    assert "expected [-1, 2]" in failed[0]
    assert doubled == {number: 2.0 * number for number in range(100) if number != 50}


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as triton_client:
        unary(triton_client)
        stream(triton_client)
    sys.stdout.write("ok\n")
