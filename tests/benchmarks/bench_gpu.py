"""Whether a GPU is used as its configuration says, with the answers of the CPU, and what it reaches.

A convolutional net is served on the CPU, on CUDA with and without pinned memory, with recorded graphs, and on TensorRT
where the installed onnxruntime has it. Each must run on the provider that it asks for and answer as the CPU does; then
runs of one session are timed by batch size, and requests through the server with 1 and 32 in flight.

Without a GPU it says so and measures nothing; with --required that is a failure. --device cpu runs the whole of it on
the CPU, which tells only that the benchmark itself works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app
from mediamesh.inference.onnx.providers import CPU, CUDA, TENSORRT, accelerated, preferred_providers
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.onnx.tuning import read_tuning
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import serving

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 8, 32)
IN_FLIGHT = (1, 32)
_GROUP = "instance_group { count: %d kind: %s }"
_TRT = """optimization { %s execution_accelerators { gpu_execution_accelerator {
  name: "tensorrt" parameters { key: "precision_mode" value: "%s" }
} } }"""
# Name: the provider that must run it, how far it may be off the CPU, and what its configuration says.
VARIANTS = {
    "cpu": (CPU, 0.0, ""),
    "cuda": (CUDA, 1e-2, ""),
    "cuda_unpinned": (
        CUDA,
        1e-2,
        "optimization { input_pinned_memory { enable: false } output_pinned_memory { enable: false } }",
    ),
    "cuda_graphs": (CUDA, 1e-2, "optimization { cuda { graphs: true } }"),
    "tensorrt_fp32": (TENSORRT, 1e-2, _TRT % ("", "FP32")),
    "tensorrt_fp16": (TENSORRT, 5e-2, _TRT % ("", "FP16")),
    "tensorrt_graphs": (TENSORRT, 5e-2, _TRT % ("cuda { graphs: true }", "FP16")),
}


def net(width: int = 64, layers: int = 8) -> bytes:
    """Return a net of convolutions with weights from a seed: [N, 3, 224, 224] to [N, 1000]."""
    dice = np.random.default_rng(0)
    nodes, weights, channels, given = [], [], 3, "x"
    for layer in range(layers):
        scale = np.sqrt(2 / (channels * 9))
        kernel = (dice.standard_normal((width, channels, 3, 3)) * scale).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        stride = [2, 2] if layer % 2 == 0 else [1, 1]
        nodes.append(helper.make_node("Conv", [given, f"w{layer}"], [f"c{layer}"], strides=stride, pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        channels, given = width, f"r{layer}"
    weights.append(numpy_helper.from_array(dice.standard_normal((width, 1000)).astype(np.float32), "last"))
    nodes += [
        helper.make_node("GlobalAveragePool", [given], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "last"], ["y"]),
    ]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(nodes, "net", [takes], [gives], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write(repository: Path, name: str, text: str, *, on_cpu: bool) -> None:
    """Write a variant of the net into a repository."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.onnx").write_bytes(net())
    group = _GROUP % ((1, "KIND_CPU") if on_cpu else (2, "KIND_GPU"))
    (directory / "config.pbtxt").write_text(f"max_batch_size: 32\ndynamic_batching {{}}\n{group}\n{text}\n")


def timed(session: Session, batch: int, seconds: float) -> float:
    """Return items a second of one session, runs one after the other."""
    pictures = {"x": np.random.default_rng(1).standard_normal((batch, 3, 224, 224)).astype(np.float32)}
    session.run(pictures, ["y"])
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        session.run(pictures, ["y"])
        count += batch
    return count / (time.perf_counter() - begin)


async def loaded(client: InferenceClient, name: str, in_flight: int, seconds: float) -> float:
    """Return requests a second through the server."""
    picture = {"x": np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)}
    count, begin = 0, time.perf_counter()

    async def ask() -> None:
        nonlocal count
        while time.perf_counter() < begin + seconds:
            await client.infer(name, picture)
            count += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(ask())
    return count / (time.perf_counter() - begin)


async def measure(options: argparse.Namespace, repository: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Serve the variants, hold their answers against the CPU's, and time them."""
    seen: dict[str, dict[str, Any]] = {}
    settings = Settings(model_repository=repository, loads_at_once=1)
    picture = np.random.default_rng(2).standard_normal((3, 3, 224, 224)).astype(np.float32)
    async with (
        app(settings) as part,
        serving(settings, part) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
    ):
        reference = (await client.infer("cpu", {"x": picture}))["y"]
        for name in names:
            wanted, tolerance, _ = VARIANTS[name]
            config = await client.models.config(name)
            ran_on = config.parameters["execution_providers"].string_value.split(",")
            answer = (await client.infer(name, {"x": picture}))["y"]
            off = float(np.abs(answer - reference).max() / np.abs(reference).max())
            right = off <= tolerance and (ran_on[0] == wanted or options.device == "cpu")
            row: dict[str, Any] = {"runs on": ran_on[0], "off by": off, "right": right}
            path = repository / name / "config.pbtxt"
            tuning = read_tuning(path, config, cores=1)
            asked = accelerated(path, config, tuning, preferred_providers(()) if wanted != CPU else [CPU], device=0)
            session = Session(name, repository / name / "1" / "model.onnx", providers=asked, threads=0, tuning=tuning)
            for batch in BATCHES:
                row[f"session, batch {batch}"] = timed(session, batch, options.seconds)
            for in_flight in IN_FLIGHT:
                row[f"server, {in_flight} in flight"] = await loaded(client, name, in_flight, options.seconds)
            seen[name] = row
    return seen


def main() -> int:
    """Measure and report; 1 when an answer or a provider is not what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--required", action="store_true", help="fail where there is no GPU")
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    offered = ort.get_available_providers()
    if options.device == "gpu" and CUDA not in offered:
        print(
            f"No GPU was measured: onnxruntime {ort.__version__} has {', '.join(offered)}; mediamesh[gpu] brings CUDA."
        )
        return int(options.required)
    names = [name for name, (wanted, _, _) in VARIANTS.items() if options.device == "cpu" or wanted in offered]
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            text, on_cpu = VARIANTS[name][2], options.device == "cpu" or name == "cpu"
            write(Path(directory), name, text, on_cpu=on_cpu)
        seen = asyncio.run(measure(options, Path(directory), names))
    table = Table(title="Items or requests a second; [N, 3, 224, 224], 602 KB an item")
    for heading in ("", *next(iter(seen.values()))):
        table.add_column(heading, justify="right")
    for name, row in seen.items():
        table.add_row(name, *(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=160).print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(seen, indent=1))
    return int(not all(row["right"] for row in seen.values()))


if __name__ == "__main__":
    sys.exit(main())
