"""The transcriber on real models: recordings of known text, whole and as they would come from a microphone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.testing import gather
from mediamesh.agents.audio_transcriber import AudioTranscriber
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Media, MediaEncoding, MediaMetadata
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.inference import InferenceClient
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, UnsupportedMediaType
from tests.inference.conftest import inference_server
from tests.models import speech
from tests.models.test_speech import BECKETT, DICKENS

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

AGENT = "mediamesh.audio-transcriber"
SECONDS = 120  # for a loaded machine


@pytest.fixture(scope="module")
def recordings(model_store):
    model_store.pull(model_store.manifest.choose(["speech_samples"]))
    folder = model_store.files("speech_samples")
    return {name: (folder / f"{name}.wav") for name in ("beckett", "two_cities")}


@pytest.fixture(scope="module")
async def inference(pulled_repository):
    """Return a client of an inference server that has the models."""
    repository = pulled_repository("whisper_tiny_en", "silero_vad")
    async with inference_server(repository) as port, InferenceClient(f"127.0.0.1:{port}") as client:
        yield client


@pytest.fixture(scope="module")
async def transcriber(inference):
    """Return a client of a server that has the agent."""
    async with transcribing(inference, pause_seconds=0.6) as client:
        yield client


@asynccontextmanager
async def transcribing(inference: InferenceClient, *, pause_seconds: float) -> AsyncIterator[AgentClient]:
    agent = AudioTranscriber(
        inference, recogniser="whisper_tiny_en", activity="silero_vad", pause_seconds=pause_seconds
    )
    async with serving_agents(AgentSettings(), agent) as port, connect(f"127.0.0.1:{port}") as channel:
        yield AgentClient(channel)


def recording(data: bytes, **params: str) -> OpenRun:
    run = OpenRun(agent_id=AGENT)
    run.inputs["audio"].media.CopyFrom(MediaValue(type=MediaType.MEDIA_TYPE_AUDIO, inline=data))
    run.params.update(params)
    return run


def live() -> OpenRun:
    return OpenRun(agent_id=AGENT, stream_inputs=["audio_stream"])


def piece(data: bytes, form: str = "audio/pcm;rate=16000") -> Chunk:
    media = Media(
        media_type=MediaType.MEDIA_TYPE_AUDIO,
        encoding=MediaEncoding.MEDIA_ENCODING_BINARY,
        binary=data,
        metadata=MediaMetadata(mime_type=form),
        is_partial=True,
    )
    return Chunk(media=media)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


async def pieces(data: bytes, size: int, form: str = "audio/pcm;rate=16000"):
    for place in range(0, len(data), size):
        yield piece(data[place : place + size], form)


async def fed(chunks):
    """Return the frames that feed the stream input."""
    number = 0
    async for chunk in chunks:
        number += 1
        chunk.sequence_number = number
        yield RunRequest(chunk=PinChunk(pin="audio_stream", chunk=chunk))
    yield RunRequest(end=PinEnd(pin="audio_stream"))


def results(outputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [json_format.MessageToDict(chunk.snapshot.data) for chunk in outputs["transcript"]]


def errors(text: str, heard: str) -> float:
    return speech.word_error_rate(speech.words(text), speech.words(heard))


@pytest.mark.parametrize(("name", "text"), [("beckett", BECKETT), ("two_cities", DICKENS)], ids=["beckett", "dickens"])
async def test_a_recording_is_written_down_without_a_mistake(transcriber, recordings, name, text) -> None:
    outputs = await gather(transcriber.run(recording(recordings[name].read_bytes()), timeout=SECONDS))
    assert errors(text, outputs["text"]) == 0, outputs["text"]
    finals = [result for result in results(outputs) if result["final"]]
    told = [{key: one for key, one in result.items() if key not in {"type", "final"}} for result in finals]
    assert json.loads(json.dumps(outputs["segments"])) == told
    assert " ".join(result["text"] for result in finals) == outputs["text"]


async def test_the_times_of_words_are_those_of_the_sound(transcriber, recordings) -> None:
    outputs = await gather(transcriber.run(recording(recordings["beckett"].read_bytes()), timeout=SECONDS))
    words = [word for segment in outputs["segments"] for word in segment["words"]]
    times = [moment for word in words for moment in (word["start"], word["end"])]
    assert times == sorted(times)
    # Where the six phrases of two words begin and end, as Silero VAD has it, which knows nothing of words.
    begins, ends = (0.35, 1.89, 3.52, 4.90, 6.66, 8.16), (1.18, 2.78, 4.19, 5.57, 7.39, 8.86)
    assert [word["start"] for word in words[::2]] == pytest.approx(begins, abs=0.15)
    assert [word["end"] for word in words[1::2]] == pytest.approx(ends, abs=0.15)
    assert all(0 < word["probability"] <= 1 for word in words)


async def test_words_come_while_a_segment_goes_on_and_its_final_result_is_the_last(transcriber, recordings) -> None:
    sound = speech.read(recordings["two_cities"])[: 13 * speech.RATE]
    told = asyncio.Semaphore(0)

    async def spoken():
        """Wait now and then until what was said is written down, so that nothing depends on time."""
        for place in range(0, len(sound), speech.RATE // 2):
            yield piece(pcm(sound[place : place + speech.RATE // 2]))
            if 2 * speech.RATE <= place <= 10 * speech.RATE and (place // (speech.RATE // 2)) % 3 == 0:
                await told.acquire()

    heard = []
    async for response in transcriber.run(live(), fed(spoken()), timeout=SECONDS):
        if response.HasField("chunk"):
            heard.append(json_format.MessageToDict(response.chunk.chunk.snapshot.data))
            told.release()
    first = [result for result in heard if result["segment"] == 0]
    assert [result["final"] for result in first] == [False] * (len(first) - 1) + [True]
    assert len(first) > 5
    lengths = [len(result["words"]) for result in first]
    assert lengths[0] <= 16
    assert lengths[-1] > 30
    assert "it was the best of times" in first[-1]["text"].casefold()


async def test_another_rate_and_two_channels_in_odd_pieces_give_the_same_words(transcriber, recordings) -> None:
    sound = speech.read(recordings["beckett"])
    wide = np.interp(np.arange(len(sound) * 3 // 2) / 1.5, np.arange(len(sound)), sound)
    data = pcm(np.repeat(wide, 2))
    stream = pieces(data, 30_001, "audio/pcm; rate=24000; channels=2")
    outputs = await gather(transcriber.run(live(), fed(stream), timeout=SECONDS))
    assert errors(BECKETT, outputs["text"]) == 0, outputs["text"]


async def test_silence_and_noise_have_no_words(transcriber) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 5 * speech.RATE)
    for sound in (np.zeros(3 * speech.RATE), noise, np.zeros(100), np.zeros(0)):
        stream = pieces(pcm(sound), 3200)
        outputs = await gather(transcriber.run(live(), fed(stream), timeout=SECONDS))
        assert outputs == {"transcript": [], "segments": [], "text": ""}


async def test_speech_without_a_pause_is_cut_where_it_is_quietest(inference, recordings) -> None:
    async with transcribing(inference, pause_seconds=5) as transcriber:  # it never pauses so long
        outputs = await gather(transcriber.run(recording(recordings["two_cities"].read_bytes()), timeout=SECONDS))
    first, second = outputs["segments"]
    assert 19 <= first["end"] <= 29.1
    assert second["start"] == first["end"]
    assert errors(DICKENS, outputs["text"]) <= 0.05


async def test_a_caller_that_leaves_ends_the_run_at_once(transcriber, recordings) -> None:
    async with aclosing(
        transcriber.run(recording(recordings["two_cities"].read_bytes()), timeout=SECONDS)
    ) as responses:
        async for response in responses:
            if response.HasField("chunk"):
                break
    async with asyncio.timeout(20):  # a second on a machine that has nothing else to do
        while (await transcriber.describe(AGENT)).capabilities.active_runs:
            pass


@pytest.mark.parametrize(
    ("run", "form", "error", "text"),
    [
        (OpenRun(agent_id=AGENT), "", InvalidRequest, "audio"),
        (recording(b"", language="fr"), "", InvalidRequest, "language"),
        (recording(b"no sound at all"), "", MediaDecodeFailed, "damaged"),
        (live(), "audio/webm", UnsupportedMediaType, "audio/pcm"),
        (live(), "audio/pcm;rate=1", InvalidRequest, "rate"),
    ],
    ids=["nothing", "language", "garbage", "container", "rate"],
)
async def test_what_cannot_be_heard_is_refused(transcriber, run, form, error, text) -> None:
    with pytest.raises(error, match=text):
        await gather(transcriber.run(run, fed(pieces(b"abcd", 4, form)) if form else (), timeout=SECONDS))
