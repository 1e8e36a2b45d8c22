"""The transcriber on real models: recordings of known text, whole and as they would come from a microphone."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf import json_format

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.testing import gather
from mediamesh.agents.audio_transcriber import AudioTranscriber
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Media, MediaEncoding
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.inference import InferenceClient
from tests.inference.conftest import inference_server
from tests.models import speech
from tests.models.test_speech import BECKETT, DICKENS

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

AGENT = "mediamesh.audio-transcriber"


@pytest.fixture(scope="module")
def recordings(model_store):
    model_store.pull(model_store.manifest.choose(["speech_samples"]))
    folder = model_store.files("speech_samples")
    return {name: (folder / f"{name}.wav").read_bytes() for name in ("beckett", "two_cities")}


@pytest.fixture(scope="module")
async def transcriber(model_store, tmp_path_factory):
    """Return a client of a server that has the agent."""
    chosen = model_store.manifest.choose(["whisper_tiny_en", "silero_vad"])
    model_store.pull(chosen)
    repository = tmp_path_factory.mktemp("repository")
    for model in chosen:
        (repository / model.name).symlink_to(model_store.cache.directory(model))
    async with (
        inference_server(repository) as port,
        InferenceClient(f"127.0.0.1:{port}") as inference,
    ):
        agent = AudioTranscriber(inference, recogniser="whisper_tiny_en", activity="silero_vad", pause_seconds=0.6)
        async with serving_agents(AgentSettings(), agent) as port, connect(f"127.0.0.1:{port}") as channel:
            yield AgentClient(channel)


def recording(data: bytes) -> OpenRun:
    run = OpenRun(agent_id=AGENT)
    run.inputs["audio"].media.CopyFrom(MediaValue(type=MediaType.MEDIA_TYPE_AUDIO, inline=data))
    return run


def results(chunks) -> list[dict]:
    return [json_format.MessageToDict(chunk.snapshot.data) for chunk in chunks]


@pytest.mark.parametrize(("name", "text"), [("beckett", BECKETT), ("two_cities", DICKENS)], ids=["beckett", "dickens"])
async def test_a_recording_is_written_down_without_a_mistake(transcriber, recordings, name, text) -> None:
    outputs = await gather(transcriber.run(recording(recordings[name]), timeout=120))
    heard = outputs["text"]
    assert speech.word_error_rate(speech.words(text), speech.words(heard)) == 0, heard
