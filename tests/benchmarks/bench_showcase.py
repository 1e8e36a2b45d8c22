"""Pictures of three sizes through a flow, what a hop costs, and many showcase flows at once, on a real mesh.

Pictures: the whole classify flow through Envoy beside decode, preprocess and ``session.run`` in this process, which
alternate. A hop: chains of agents that only hand a value on, of several lengths; the slope is a hop. Showcase: the
shipped flow with a photo, 10 s of speech and 10 s of video, so many at once; how many succeed, how long they take, and
what the mesh holds in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mediamesh.agent import Agent, AgentSettings, Run, serving_agents
from mediamesh.agent.manifest import parse_manifest
from mediamesh.agents.image_classifier.preprocessing import preprocess
from mediamesh.api.agent.v1.manifest_pb2 import Manifest
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_SUCCEEDED
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import (
    MEDIA_TYPE_AUDIO,
    MEDIA_TYPE_IMAGE,
    MEDIA_TYPE_VIDEO,
    MediaType,
    MediaValue,
)
from mediamesh.cli.demo import mesh_up
from mediamesh.client import Mesh
from mediamesh.models.settings import Settings
from mediamesh.models.store import open_store
from mediamesh.wire.errors import MeshError
from tests.benchmarks.bench_flow import MODEL, fresh, memory

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "clients" / "examples"
SIZES = ((640, 480), (1920, 1080), (4096, 2160))
TARGETS_MS = (100, 500, 2000)
LENGTHS = (1, 2, 4, 8)


class Pass(Agent):
    """Hands its input on."""

    def describe(self) -> Manifest:
        return parse_manifest(
            "{id: bench.pass, version: 1.0.0, inputs: [{name: x, type: json}], outputs: [{name: x, type: json}]}"
        )

    async def process(self, run: Run) -> dict[str, Any]:
        return {"x": run.inputs["x"]}


def source(name: str) -> FlowSource:
    """Return a flow that ships."""
    path = EXAMPLES / "flows" / name
    return FlowSource(name=path.name, yaml=path.read_text())


def inline(kind: MediaType.ValueType, data: bytes) -> Value:
    """Return media as a value."""
    return Value(media=MediaValue(type=kind, inline=data))


def picture(size: tuple[int, int]) -> bytes:
    """Return a real photo as a JPEG of a size."""
    with Image.open(EXAMPLES / "media" / "rocket.jpg") as image:
        scaled = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scaled.save(file, "JPEG", quality=90)
    return file.getvalue()


async def run(client: Mesh, flow: FlowSource, inputs: Mapping[str, Value], timeout: float = 600) -> float:
    """Run a flow to its end; return its seconds.

    Raises:
        MeshError: it failed.
    """
    begin = time.perf_counter()
    async for event in client.flows.run(flow, inputs, timeout=timeout):
        if event.HasField("execution_finished") and event.execution_finished.state != EXECUTION_STATE_SUCCEEDED:
            raise MeshError(event.execution_finished.error.message)
    return time.perf_counter() - begin


async def pictures(client: Mesh, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return milliseconds by size and by what was done."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    flow, taken = source("classify.mlab"), {}
    for size in SIZES:
        jpeg = picture(size)
        ms: dict[str, list[float]] = {"flow": [], "bare": []}
        for number in track(range(rounds + 3), f"{size[0]} x {size[1]}"):
            content = fresh(jpeg, number)
            seconds = await run(client, flow, {"upload.file": inline(MEDIA_TYPE_IMAGE, content)})
            begin = time.perf_counter()
            session.run(None, {"input": preprocess(content)[np.newaxis]})
            if number >= 3:
                ms["flow"].append(seconds * 1e3)
                ms["bare"].append((time.perf_counter() - begin) * 1e3)
        taken[f"{size[0]} x {size[1]}"] = ms
    return taken


def chain(length: int) -> FlowSource:
    """Return a flow in which a constant passes so many agents."""
    nodes = ["{id: n0, type: bench.pass, outputs: {x: 1}}"]
    nodes += [f"{{id: n{number}, type: bench.pass}}" for number in range(1, length + 1)]
    edges = [f"{{from: n{number}.x, to: n{number + 1}.x}}" for number in range(length)]
    text = "apiVersion: v1beta1\nkind: Flow\nmeta: {id: chain}\ngraph:\n"
    text += f"  nodes: [{', '.join(nodes)}]\n  edges: [{', '.join(edges)}]\n"
    return FlowSource(name="chain.mlab", yaml=text)


async def hops(client: Mesh, rounds: int) -> dict[int, float]:
    """Return the median milliseconds of chains, by their length; the lengths alternate."""
    taken: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for number in track(range(rounds + 5), "hops"):
        for length in LENGTHS:
            seconds = await run(client, chain(length), {})
            if number >= 5:
                taken[length].append(seconds * 1e3)
    return {length: float(np.median(ms)) for length, ms in taken.items()}


async def showcases(client: Mesh, count: int, media: Mapping[str, Value]) -> tuple[list[float], list[str]]:
    """Run so many showcase flows at once; return the seconds of those that succeeded, and why others did not."""
    flow = source("showcase.mlab")
    done = await asyncio.gather(*(run(client, flow, media) for _ in range(count)), return_exceptions=True)
    failures = [one for one in done if isinstance(one, BaseException)]
    return [one for one in done if isinstance(one, float)], [f"{type(one).__name__}: {one}" for one in failures]


def samples() -> dict[str, Value]:
    """Return the media of the showcase."""
    with open_store(Settings.load()) as store:
        store.pull(store.manifest.choose(["speech_samples", "video_samples"]))
        speech = store.files("speech_samples") / "beckett.wav"
        video = store.files("video_samples") / "bikes.mp4"
        return {
            "photo.file": inline(MEDIA_TYPE_IMAGE, (EXAMPLES / "media" / "cat.jpg").read_bytes()),
            "recorder.audio": inline(MEDIA_TYPE_AUDIO, speech.read_bytes()),
            "video.file": inline(MEDIA_TYPE_VIDEO, video.read_bytes()),
        }


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything on one mesh."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving_agents(AgentSettings(grace_seconds=0), Pass()))
        up = mesh_up(folder, MEDIAMESH_UP_EXTRA_AGENTS=json.dumps([f"127.0.0.1:{port}"]))
        mesh = await asyncio.to_thread(stack.enter_context, up)
        client = await stack.enter_async_context(Mesh(mesh.door))
        media = samples()
        alone, failed = await showcases(client, 1, media)
        assert not failed, failed
        taken = {"pictures": await pictures(client, options.rounds), "hops": await hops(client, options.rounds)}
        alone, _ = await showcases(client, 1, media)
        before = memory(mesh)
        together, failed = await showcases(client, options.showcases, media)
        return {
            **taken,
            "alone_s": alone[0],
            "together_s": together,
            "failed": failed,
            "before_mb": before,
            "after_mb": memory(mesh),
        }


def report(out: Path, found: dict[str, Any], asked: int) -> None:
    """Print tables, write JSON and a plot."""
    console = Console()
    table = Table(title="a JPEG through the classify flow, ms")
    for heading in ("size", "flow p50", "p99", "bare p50", "ratio", "target"):
        table.add_column(heading, justify="right")
    for (size, ms), target in zip(found["pictures"].items(), TARGETS_MS, strict=True):
        flow, bare = np.percentile(ms["flow"], (50, 99)), float(np.median(ms["bare"]))
        table.add_row(size, f"{flow[0]:.0f}", f"{flow[1]:.0f}", f"{bare:.0f}", f"{flow[0] / bare:.1f}", f"{target}")
    console.print(table)
    lengths = list(found["hops"])
    slope, start = np.polyfit(lengths, list(found["hops"].values()), 1)
    console.print(f"a hop: {slope:.1f} ms; a run of none: {start:.1f} ms; {found['hops']}")
    seconds = found["together_s"]
    rate = len(seconds) / asked
    said = f"p50 {np.percentile(seconds, 50):.1f} s, p99 {np.percentile(seconds, 99):.1f} s" if seconds else ""
    console.print(f"{asked} showcase flows at once: {rate:.0%} succeeded, {said}; one alone {found['alone_s']:.1f} s")
    for failure in found["failed"][:5]:
        console.print(f"  {failure}", soft_wrap=True)
    held = sum(found["before_mb"].values()), sum(found["after_mb"].values())
    console.print(f"memory of the mesh: {held[0]:.0f} MB before, {held[1]:.0f} MB after")
    (out / "showcase.json").write_text(json.dumps(found, indent=1))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    places = np.arange(len(SIZES))
    for shift, name, label in ((-0.2, "flow", "whole flow"), (0.2, "bare", "bare work")):
        left.bar(places + shift, [np.median(ms[name]) for ms in found["pictures"].values()], 0.4, label=label)
    left.set_xticks(places, list(found["pictures"]))
    left.set(ylabel="ms, p50", title="A JPEG")
    left.legend()
    middle.plot(lengths, list(found["hops"].values()), "o-")
    middle.set(xlabel="agents in a chain", ylabel="ms, p50", title=f"A hop: {slope:.1f} ms")
    right.hist(seconds, bins=20)
    right.set(xlabel="seconds", ylabel="runs", title=f"{asked} showcase flows at once")
    figure.savefig(out / "showcase.png", dpi=120)
    console.print(f"written: {out / 'showcase.json'}, {out / 'showcase.png'}", soft_wrap=True)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--showcases", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MEDIAMESH_LOG_LEVEL", "warning")
    with tempfile.TemporaryDirectory() as data:
        found = asyncio.run(measure(options, Path(data)))
    report(options.out, found, options.showcases)


if __name__ == "__main__":
    main()
