"""What the video analyzer reaches of its bare work: 720p at 30 frames a second, objects in every frame.

The bare work is decoding, scaling, one ``session.run`` a core and boxes, in this process; the agent and the inference
server are processes of their own. They take turns in every round, on the same cores. The film is Big Buck Bunny, which
is 25 frames a second, told to be 30. CPU time a frame hardly depends on what else the machine does; frames a second do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import matplotlib as mpl
import numpy as np
import onnxruntime
import psutil
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from rich.console import Console
from rich.table import Table

from mediamesh.agents.video_analyzer.detection import ObjectDetection
from mediamesh.agents.video_analyzer.video import Video
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.models.settings import Settings as ModelSettings
from mediamesh.models.store import open_store
from mediamesh.stack.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mediamesh.agents.video_analyzer.analysis import Picture

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
FPS = 30
PIXELS = 10_000_000
PARTS = ("decode", "scale", "session.run", "boxes")
MODEL = "nanodet_int8"
Seen = dict[str, list[float]]


def at_thirty(film: Path, times: int) -> bytes:
    """Return the film's pictures so many times one behind the other, at 30 frames a second, not encoded anew."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as output, av.open(film) as source:
        pictures = source.streams.video[0]
        stream = output.add_stream_from_template(pictures)
        packets = [packet for packet in source.demux(pictures) if packet.dts is not None]
        tick, step = Fraction(1, FPS) / 512, packets[0].duration or 512
        for number in range(times):
            begin = number * len(packets) * 512
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = (begin + (at or 0) * 512 // step for at in (packet.pts, packet.dts))
                copy.time_base, copy.duration, copy.is_keyframe = tick, 512, packet.is_keyframe
                copy.stream = stream
                output.mux(copy)
    return buffer.getvalue()


class Bare:
    """The analyzer's work without any mesh."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # As the server has it: kernels that do not saturate, where the processor has none for bytes.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(model, options)

    def one_by_one(self, film: bytes, seen: Seen) -> None:
        """Do all for one frame, then for the next; note the CPU time of each part, and the clock of a frame."""
        analysis, frames = ObjectDetection(MODEL, min_score=0.35), 0
        parts = dict.fromkeys(PARTS, 0.0)
        begin = last = time.perf_counter()
        before = time.process_time()
        for picture, scaled in self._pictures(film, analysis):
            decoded = time.thread_time()
            output = self._session.run(None, {"frames": picture.tensor})[0]
            ran = time.thread_time()
            analysis.tell(picture, {"objects": np.asarray(output)})
            for part, seconds in zip(PARTS[1:], (scaled, ran - decoded, time.thread_time() - ran), strict=True):
                parts[part] += seconds
            now = time.perf_counter()
            seen["bare frame ms"].append((now - last) * 1000)
            last, frames = now, frames + 1
        # The rest: the decoder has threads of its own.
        parts["decode"] = time.process_time() - before - sum(parts.values())
        for part, seconds in parts.items():
            seen[f"bare {part} ms"].append(seconds / frames * 1000)
        seen["bare, one by one, frames/s"].append(frames / (last - begin))

    def side_by_side(self, film: bytes, seen: Seen) -> None:
        """Decode in this thread, and run the model in as many as there are cores."""
        analysis, frames = ObjectDetection(MODEL, min_score=0.35), 0
        cores = os.cpu_count() or 1
        begin, before = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(cores) as pool:
            asked = []
            for picture, _ in self._pictures(film, analysis):
                asked.append((picture, pool.submit(self._session.run, None, {"frames": picture.tensor})))
                while len(asked) > 2 * cores:
                    first, answer = asked.pop(0)
                    analysis.tell(first, {"objects": np.asarray(answer.result()[0])})
                frames += 1
            for picture, answer in asked:
                analysis.tell(picture, {"objects": np.asarray(answer.result()[0])})
        seen["bare, side by side, frames/s"].append(frames / (time.perf_counter() - begin))
        seen["bare CPU ms a frame"].append((time.process_time() - before) / frames * 1000)

    @staticmethod
    def _pictures(film: bytes, analysis: ObjectDetection) -> Iterator[tuple[Picture, float]]:
        video, scaled = Video(BytesIO(film), max_pixels=PIXELS), 0.0

        def prepare(frame: Any) -> Picture:
            nonlocal scaled
            begin = time.thread_time()
            picture = analysis.prepare(frame)
            scaled = time.thread_time() - begin
            return picture

        video.open()
        goes_on = True
        while goes_on:
            picture, goes_on = video.next(prepare)
            if picture is not None:
                yield picture, scaled
        video.close()


@asynccontextmanager
async def process(part: str, **settings: object) -> AsyncIterator[tuple[psutil.Process, int, AgentClient]]:
    """Run a part of the mesh as a process; yields it, its port, and a client of its agents."""
    (port,) = free_ports(1)
    variables = {f"MEDIAMESH_{part.upper()}_{name.upper()}": str(value) for name, value in settings.items()}
    environment = os.environ | variables | {f"MEDIAMESH_{part.upper()}_PORT": str(port), "MEDIAMESH_LOG_LEVEL": "error"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", f"mediamesh.{part}", env=environment)
    try:
        async with connect(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            yield psutil.Process(child.pid), port, AgentClient(channel)
    finally:
        child.terminate()
        await child.wait()


async def run(client: AgentClient, film: bytes, seen: Seen, pace: str) -> int:
    """Run the agent once; note frames a second, the first result, and what the summary says."""
    opening = OpenRun(agent_id="mediamesh.video-analyzer")
    opening.inputs["video"].media.CopyFrom(MediaValue(type=MediaType.MEDIA_TYPE_VIDEO, inline=film))
    opening.params["pace"] = pace
    begin, frames, summary = time.perf_counter(), 0, Value()
    async for response in client.run(opening, timeout=600):
        match response.WhichOneof("message"):
            case "chunk":
                frames += 1
                if frames == 1:
                    seen["first result ms"].append((time.perf_counter() - begin) * 1000)
            case "output":
                summary = response.output.value.json
    name = "agent" if pace == "fast" else "agent at 30/s"
    seen[f"{name}, frames/s"].append(frames / (time.perf_counter() - begin))
    facts = json_format.MessageToDict(summary)
    for share in ("p50", "p99"):
        seen[f"{name}, {share} ms"].append(facts["latency"][share] * 1000)
    seen[f"{name}, dropped %"].append(100 * facts["dropped"] / facts["frames"])
    return int(facts["frames"])


def spent(found: psutil.Process) -> float:
    """Return the seconds of CPU time of a process."""
    taken = found.cpu_times()
    return float(taken.user + taken.system)


async def measure(options: argparse.Namespace, film: bytes, repository: Path) -> Seen:
    """Return what was seen in every round."""
    seen: Seen = defaultdict(list)
    bare = Bare(repository / MODEL / "1" / "model.onnx")
    async with AsyncExitStack() as stack:
        inference, port, _ = await stack.enter_async_context(process("inference", model_repository=repository))
        address = f"127.0.0.1:{port}"
        agents, _, client = await stack.enter_async_context(process("agents", inference_address=address))
        await run(client, film, defaultdict(list), "fast")
        for _ in range(options.rounds):
            await asyncio.to_thread(bare.one_by_one, film, seen)
            await asyncio.to_thread(bare.side_by_side, film, seen)
            before = spent(agents), spent(inference)
            frames = await run(client, film, seen, "fast")
            for name, found, then in zip(("agent", "inference"), (agents, inference), before, strict=True):
                seen[f"{name} CPU ms a frame"].append((spent(found) - then) / frames * 1000)
            await run(client, film, seen, "media")
            for name, found in (("agent", agents), ("inference", inference)):
                seen[f"{name} MB"].append(found.memory_info().rss / 1e6)
    return seen


def report(out: Path, seen: Seen) -> None:
    """Print tables, write JSON and a plot."""
    console, middle = Console(), {name: float(np.median(values)) for name, values in seen.items()}
    cores = os.cpu_count() or 1
    table = Table(title=f"1280 by 720, objects in every frame, {cores} cores")
    for heading in ("", "median", "least", "most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in sorted(middle):
        table.add_row(name, f"{middle[name]:.1f}", f"{min(seen[name]):.1f}", f"{max(seen[name]):.1f}")
    console.print(table)
    both = middle["agent CPU ms a frame"] + middle["inference CPU ms a frame"]
    bare = middle["bare CPU ms a frame"]
    console.print(
        f"by CPU time {cores} cores allow {1000 * cores / bare:.0f} frames/s bare and {1000 * cores / both:.0f} "
        f"through the agent, which takes {both / bare:.2f} times the bare work"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "video.json").write_text(json.dumps(seen, indent=1))
    figure, (rates, costs) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = ["bare, one by one", "bare, side by side", "agent", "agent at 30/s"]
    rates.barh(names, [middle[f"{name}, frames/s"] for name in names], color=["0.6", "0.6", "C0", "C1"])
    rates.axvline(FPS, color="k", linestyle=":", label="30 frames/s")
    rates.set(xlabel="frames a second", title="720p, objects in every frame")
    rates.invert_yaxis()
    rates.legend()
    bottom = 0.0
    for part in PARTS:
        costs.bar("bare", middle[f"bare {part} ms"], bottom=bottom, label=part)
        bottom += middle[f"bare {part} ms"]
    costs.bar("through the mesh", middle["agent CPU ms a frame"], color="C4", label="agents server")
    costs.bar(
        "through the mesh", middle["inference CPU ms a frame"], bottom=middle["agent CPU ms a frame"], color="C5",
        label="inference server",
    )  # fmt: skip
    costs.set(ylabel="CPU ms a frame", title="what a frame costs")
    costs.legend(bbox_to_anchor=(1.02, 1), loc="upper left")
    figure.savefig(out / "video.png", dpi=120)
    console.print(f"written: {out / 'video.json'}, {out / 'video.png'}", soft_wrap=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=3, help="how often the film of 132 frames is shown in one run")
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    with open_store(ModelSettings.load()) as store, tempfile.TemporaryDirectory() as folder:
        store.pull(store.manifest.choose([MODEL, "video_samples"]))
        shutil.copytree(store.cache.directory(store.manifest.choose([MODEL])[0]), Path(folder) / MODEL)
        film = at_thirty(store.files("video_samples") / "bigbuckbunny.mp4", options.times)
        seen = asyncio.run(measure(options, film, Path(folder)))
    report(options.out, seen)


if __name__ == "__main__":
    main()
