"""Silero's voice detector as a model with state: the server carries what its callers would have to carry otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.models.converters import silero
from tests.inference.conftest import inference_server

pytestmark = pytest.mark.stack

UPSTREAM = Path(__file__).parents[2] / "deploy" / "models" / "files" / "silero_vad_16k_op15.onnx"
FRAMES, CALLERS = 60, 5
CONFIG = """
max_batch_size: 64
input { name: "audio" data_type: TYPE_FP32 dims: [ 512 ] }
output { name: "speech" data_type: TYPE_FP32 dims: [ 1 ] }
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 1000 }
  state {
    input_name: "state" output_name: "next_state" data_type: TYPE_FP32 dims: [ 320 ]
    initial_state { name: "silence" data_type: TYPE_FP32 dims: [ 320 ] zero_data: true }
  }
}
"""


def sounds() -> np.ndarray:
    """Return buzzes of several pitches that come and go: callers, frames, samples."""
    time = np.arange(FRAMES * 512) / 16_000
    buzz = [
        np.sign(np.sin(2 * np.pi * (110 + 30 * n) * time)) * (np.sin(2 * np.pi * (3 + n) * time) > 0)
        for n in range(CALLERS)
    ]
    noise = np.random.default_rng(4).normal(0, 0.02, (CALLERS, FRAMES * 512))
    return (0.3 * np.array(buzz) + noise).astype(np.float32).reshape(CALLERS, FRAMES, 512)


def expected(audio: np.ndarray) -> np.ndarray:
    """Return what upstream's model says of one caller's frames."""
    session = onnxruntime.InferenceSession(UPSTREAM)
    state, context, told = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for frame in audio:
        window = np.concatenate([context, frame])[None]
        speech, state = session.run(None, {"input": window, "state": state, "sr": np.array(16_000)})
        context = frame[-64:]
        told.append(np.asarray(speech)[0, 0])
    return np.array(told)


async def test_frames_of_many_callers_are_heard_as_if_each_had_the_model_for_itself(tmp_path) -> None:
    (tmp_path / "vad" / "1").mkdir(parents=True)
    silero.convert({"model": UPSTREAM}, tmp_path / "vad" / "1")
    (tmp_path / "vad" / "config.pbtxt").write_text(CONFIG)
    heard = sounds()

    async def frames():
        for index in range(FRAMES):
            for caller in range(CALLERS):
                request = pb.ModelInferRequest(model_name="vad", id=str(caller))
                request.inputs.add(name="audio", datatype="FP32", shape=[1, 512])
                request.raw_input_contents.append(heard[caller, index].tobytes())
                request.parameters["sequence_id"].string_param = f"caller {caller}"
                request.parameters["sequence_start"].bool_param = index == 0
                request.parameters["sequence_end"].bool_param = index == FRAMES - 1
                yield request

    told: list[list[float]] = [[] for _ in range(CALLERS)]
    async with inference_server(tmp_path) as port, connect(f"127.0.0.1:{port}") as channel:
        async for answer in GRPCInferenceServiceStub(channel).ModelStreamInfer(frames()):
            assert not answer.error_message
            response = answer.infer_response
            assert [output.name for output in response.outputs] == ["speech"]
            told[int(response.id)].append(float(np.frombuffer(response.raw_output_contents[0], np.float32)[0]))
    wanted = np.array([expected(audio) for audio in heard])
    assert wanted.max() - wanted.min() > 0.05
    np.testing.assert_allclose(told, wanted, atol=1e-4)
