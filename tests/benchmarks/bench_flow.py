"""What the mesh adds to a model: a 640 by 480 JPEG through the whole flow, warm, through Envoy.

Beside it, interleaved in the same run, the bare work in this process: decode, preprocess, one ``session.run``. Also how
long ``mediamesh up`` takes until it is ready, and what each process holds in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnxruntime
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from mediamesh.agents.image_classifier.preprocessing import preprocess
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_IMAGE, MediaValue
from mediamesh.cli.demo import MeshProcess, mesh_up
from mediamesh.client import Mesh

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy" / "models" / "repository" / "efficientnet_lite0_int8" / "1" / "model.onnx"
FLOW = ROOT / "clients" / "examples" / "flows" / "classify.mlab"


def photo() -> bytes:
    """Return a real photo as a JPEG of 640 by 480."""
    with Image.open(ROOT / "clients" / "examples" / "media" / "rocket.jpg") as image:
        scaled = image.convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scaled.save(file, "JPEG", quality=90)
    return file.getvalue()


def fresh(jpeg: bytes, number: int) -> bytes:
    """Return the same picture as other bytes (a comment after SOI), so that no run is served by an earlier upload."""
    note = f"{number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + jpeg[2:]


async def measure(mesh: MeshProcess, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds by what was done; the two alternate."""
    jpeg, flow = photo(), FlowSource(name=FLOW.name, yaml=FLOW.read_text())
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    taken: dict[str, list[float]] = {"flow": [], "bare": []}
    async with Mesh(mesh.door) as client:

        async def run(content: bytes) -> None:
            value = Value(media=MediaValue(type=MEDIA_TYPE_IMAGE, inline=content))
            events = [event async for event in client.flows.run(flow, {"upload.file": value}, timeout=30)]
            assert not events[-1].execution_finished.HasField("error"), events[-1]

        def bare(content: bytes) -> None:
            session.run(None, {"input": preprocess(content)[np.newaxis]})

        for number in range(rounds + 20):
            content = fresh(jpeg, number)
            begin = time.perf_counter()
            await run(content)
            middle = time.perf_counter()
            bare(content)
            end = time.perf_counter()
            if number >= 20:
                taken["flow"].append((middle - begin) * 1e3)
                taken["bare"].append((end - middle) * 1e3)
    return taken


def memory(mesh: MeshProcess) -> dict[str, float]:
    """Return proportional resident megabytes (PSS: shared pages counted once) by process."""
    held: dict[str, float] = {}
    for process in [psutil.Process(mesh.pid), *psutil.Process(mesh.pid).children(recursive=True)]:
        words = [word.rsplit("/", 1)[-1] for word in process.cmdline()]
        name = next((word for word in words if word.startswith("mediamesh.")), words[0])
        held[name] = held.get(name, 0.0) + process.memory_full_info().pss / 1e6
    return held


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        begin = time.perf_counter()
        with mesh_up(Path(data), MEDIAMESH_UP_MODELS="[]") as mesh:
            ready = time.perf_counter() - begin
            idle = memory(mesh)
            taken = asyncio.run(measure(mesh, options.rounds))
            loaded = memory(mesh)
    report(options.out, ready, taken, idle, loaded)


def report(
    out: Path, ready: float, taken: dict[str, list[float]], idle: dict[str, float], loaded: dict[str, float]
) -> None:
    """Print tables, write JSON and a plot."""
    console = Console()
    table = Table(title="640 by 480 JPEG, one at a time, warm, ms")
    for heading in ("", "p50", "p90", "p99"):
        table.add_column(heading, justify="right")
    for name, label in (("flow", "whole flow through Envoy"), ("bare", "decode + preprocess + session.run")):
        table.add_row(label, *(f"{np.percentile(taken[name], share):.1f}" for share in (50, 90, 99)))
    console.print(table)
    added = float(np.percentile(taken["flow"], 50) - np.percentile(taken["bare"], 50))
    ratio = float(np.percentile(taken["flow"], 50) / np.percentile(taken["bare"], 50))
    console.print(f"the mesh adds {added:.1f} ms at p50, {ratio:.1f} times the bare work; up in {ready:.1f} s")
    table = Table(title="resident memory (PSS), MB")
    for heading in ("process", "idle", "after the runs"):
        table.add_column(heading, justify="right")
    for name in sorted(loaded, key=loaded.__getitem__, reverse=True):
        table.add_row(name, f"{idle.get(name, 0):.0f}", f"{loaded[name]:.0f}")
    table.add_row("whole stack", f"{sum(idle.values()):.0f}", f"{sum(loaded.values()):.0f}")
    console.print(table)
    (out / "flow.json").write_text(
        json.dumps({"ready_s": ready, "ms": taken, "idle_mb": idle, "loaded_mb": loaded}, indent=1)
    )
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    bins = np.linspace(0, np.percentile(taken["flow"], 99.5), 80).tolist()
    axes.hist(taken["bare"], bins=bins, label="decode + preprocess + session.run")
    axes.hist(taken["flow"], bins=bins, label="whole flow through Envoy")
    axes.set(xlabel="ms", ylabel="runs", title="A 640 by 480 JPEG through the mesh, and the bare work in process")
    axes.legend()
    figure.savefig(out / "flow.png", dpi=120)
    console.print(f"written: {out / 'flow.json'}, {out / 'flow.png'}", soft_wrap=True)


if __name__ == "__main__":
    main()
