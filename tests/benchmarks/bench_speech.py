"""What transcribing costs: a piece of sound in, a partial result out, and how much faster than speech a recording goes.

Everything is in one process. What the agent asks of the models is written down and asked again of bare sessions of
onnxruntime, with as many threads, so that the ratio is what the agent and the mesh add to the very same work.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agents.audio_transcriber import AudioTranscriber
from mediamesh.agents.audio_transcriber.sound import RATE
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Media, MediaEncoding, MediaMetadata
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app as inference_app
from mediamesh.inference.settings import Settings as InferenceSettings
from mediamesh.kit.serve import serving
from mediamesh.models.settings import Settings as ModelSettings
from mediamesh.models.store import open_store
from tests.models import speech

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

WHISPER, SILERO = "whisper_tiny_en", "silero_vad"
AGENT = "mediamesh.audio-transcriber"
PIECE = RATE // 10  # samples of a chunk
Asked = tuple[str, dict[str, Any]]


class Recording(InferenceClient):
    """Writes down what is asked."""

    asked: list[Asked]

    async def infer(self, model: str, inputs: Mapping[str, Any], **rest: Any) -> Any:
        """Ask."""
        self.asked.append((model, dict(inputs)))
        return await super().infer(model, inputs, **rest)


class Bench:
    """The agent with its models, and the bare sessions."""

    def __init__(self, client: AgentClient, inference: Recording, sessions: dict[str, Any]) -> None:
        self.client, self.inference, self.sessions = client, inference, sessions

    async def live(self, sound: np.ndarray[Any, Any], *, pace: bool) -> list[float]:
        """Return the milliseconds from each chunk that a partial result ends with to that result."""
        sent: list[float] = []

        async def frames() -> AsyncIterator[RunRequest]:
            begin = time.perf_counter()
            for number, place in enumerate(range(0, len(sound), PIECE), 1):
                if pace:
                    await asyncio.sleep(begin + place / RATE - time.perf_counter())
                data = (sound[place : place + PIECE] * 32767).astype("<i2").tobytes()
                media = Media(
                    media_type=MediaType.MEDIA_TYPE_AUDIO,
                    encoding=MediaEncoding.MEDIA_ENCODING_BINARY,
                    binary=data,
                    metadata=MediaMetadata(mime_type=f"audio/pcm;rate={RATE}"),
                    is_partial=True,
                )
                chunk = Chunk(sequence_number=number, media=media)
                sent.append(time.perf_counter())
                yield RunRequest(chunk=PinChunk(pin="audio_stream", chunk=chunk))
            yield RunRequest(end=PinEnd(pin="audio_stream"))

        taken = []
        async for response in self.client.run(OpenRun(agent_id=AGENT, stream_inputs=["audio_stream"]), frames()):
            if response.HasField("chunk"):
                result = json_format.MessageToDict(response.chunk.chunk.snapshot.data)
                if not result["final"]:
                    last = min(int(result["end"] * RATE - 1) // PIECE, len(sent) - 1)
                    taken.append((time.perf_counter() - sent[last]) * 1000)
        return taken

    async def recording(self, data: bytes) -> float:
        """Return the seconds of one run."""
        opening = OpenRun(agent_id=AGENT)
        opening.inputs["audio"].media.type = MediaType.MEDIA_TYPE_AUDIO
        opening.inputs["audio"].media.inline = data
        begin = time.perf_counter()
        async for _ in self.client.run(opening):
            pass
        return time.perf_counter() - begin

    async def bare(self, asked: list[Asked], pause: float = 0.0) -> list[float]:
        """Return the milliseconds of each question, asked of the bare models, with pauses as a speaker makes them.

        A processor that others use too gives more of itself to who takes it seldom.
        """
        taken = []
        for model, inputs in asked:
            await asyncio.sleep(pause)
            begin = time.perf_counter()
            self.sessions[model].run(None, inputs)
            taken.append((time.perf_counter() - begin) * 1000)
        return taken


async def measure(rounds: int, cores: int) -> None:
    """Measure and print."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(open_store(ModelSettings.load()))
        store.pull(store.manifest.choose([WHISPER, SILERO, "speech_samples"]))
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sessions = {}
        for name in (WHISPER, SILERO):
            (repository / name).symlink_to(store.cache.directory(store.manifest.choose([name])[0]))
            sessions[name] = session(store.files(name) / "model.onnx", cores)
        settings = InferenceSettings(model_repository=repository, cpu_threads=cores)
        part = await stack.enter_async_context(inference_app(settings))
        port = await stack.enter_async_context(serving(settings, part))
        inference = await stack.enter_async_context(Recording(f"127.0.0.1:{port}"))
        inference.asked = []
        agent = AudioTranscriber(inference, recogniser=WHISPER, activity=SILERO, pause_seconds=0.6)
        port = await stack.enter_async_context(serving_agents(AgentSettings(), agent))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{port}"))
        bench = Bench(AgentClient(channel), inference, sessions)
        files = {name: store.files("speech_samples") / f"{name}.wav" for name in ("beckett", "two_cities")}
        for file in files.values():
            await bench.recording(file.read_bytes())  # warm
        await partials(bench, speech.read(files["two_cities"])[: 30 * RATE], rounds)
        await recordings(bench, files, rounds)
        await taking(bench)


def session(path: Path, cores: int) -> onnxruntime.InferenceSession:
    """Return a bare session, as the server would make it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(path, options)


async def partials(bench: Bench, sound: np.ndarray[Any, Any], rounds: int) -> None:
    """Print how long a partial result takes while somebody speaks."""
    taken, alone = [], []
    for _ in range(rounds):
        bench.inference.asked.clear()
        taken += await bench.live(sound, pace=True)
        glimpses = [one for one in bench.inference.asked if one[0] == WHISPER and one[1]["mel"].shape[2] < 1000]
        alone += await bench.bare(glimpses, pause=0.4)
    table = Table(title="A piece of 100 ms in, a partial result out", caption="milliseconds")
    for column in ("", "number", "p50", "p90", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in (("through the agent", taken), ("the recogniser's work alone", alone)):
        table.add_row(name, str(len(values)), *(f"{np.percentile(values, share):.1f}" for share in (50, 90, 99)))
    Console().print(table)
    Console().print(f"ratio of the medians: {np.median(taken) / np.median(alone):.2f}")


async def recordings(bench: Bench, files: Mapping[str, Path], rounds: int) -> None:
    """Print how long a recording takes, of its own length."""
    table = Table(title="Real-time factors", caption="the best of the rounds")
    for column in ("recording", "seconds", "through the agent", "the models' work alone", "ratio"):
        table.add_column(column, justify="right")
    for name, file in files.items():
        seconds, data = len(speech.read(file)) / RATE, file.read_bytes()
        taken, alone = [], []
        for _ in range(rounds):
            bench.inference.asked.clear()
            taken.append(await bench.recording(data))
            alone.append(sum(await bench.bare(list(bench.inference.asked))) / 1000)
        best, least = min(taken), min(alone)
        table.add_row(name, f"{seconds:.1f}", f"{best / seconds:.3f}", f"{least / seconds:.3f}", f"{best / least:.2f}")
    Console().print(table)


async def taking(bench: Bench) -> None:
    """Print how fast sound is taken in which nobody speaks."""
    sound = np.zeros(300 * RATE, np.float32)
    begin = time.perf_counter()
    await bench.live(sound, pace=False)
    seconds = time.perf_counter() - begin
    megabits = len(sound) * 16 / 1e6
    Console().print(
        f"silence is taken at {megabits / seconds:.1f} Mbit/s, {300 / seconds:.0f} times as fast as it lasts"
    )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(measure(given.rounds, given.threads))


if __name__ == "__main__":
    main()
