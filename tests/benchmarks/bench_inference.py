"""What the inference server reaches of raw onnxruntime: EfficientNet-Lite0, 602 KB a request, server and load generator
on the same cores.

"By CPU" is the share of raw throughput that the CPU time of server and load generator together allows: what a machine
that does nothing else would show, and far less noisy than the share seen.

Raw onnxruntime in its best configuration, ModelInfer and ModelStreamInfer at 1, 8 and 32 in flight take turns in every
round; the figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import matplotlib as mpl
import numpy as np
import onnxruntime
import psutil
from rich.console import Console
from rich.table import Table

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from tests.benchmarks.load import PICTURE

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "deploy" / "models" / "repository"
MODEL = "efficientnet_lite0_int8"
IN_FLIGHT = (1, 8, 32)
# How raw onnxruntime may be run; the best of them is what the server is held against. A worker runs in a thread.
RAW = {"a session of all cores": (0, 1, 1), "a worker per core": (1, 0, 1), "a worker per core, batch 8": (1, 0, 8)}


def raw(threads: int, workers: int, batch: int, seconds: float) -> dict[str, float]:
    """Return pictures a second, CPU milliseconds a picture and the median run in ms; 0 means one for each core."""
    cores = len(os.sched_getaffinity(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(REPOSITORY / MODEL / "1" / "model.onnx", options, ["CPUExecutionProvider"])
    pictures = {"input": np.repeat(PICTURE, batch, 0)}
    session.run(None, pictures)
    taken: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()

    def work() -> None:
        while (start := time.perf_counter()) < begin + seconds:
            session.run(None, pictures)
            taken.append(time.perf_counter() - start)

    running = [threading.Thread(target=work) for _ in range(workers or cores)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    count = len(taken) * batch
    return {
        "per_s": count / (time.perf_counter() - begin),
        "server_cpu_ms": (time.process_time() - cpu) / count * 1e3,
        "p50_ms": statistics.median(taken) * 1e3,
    }


@contextmanager
def server(python: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run the inference server as a process; yield its port and it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MEDIAMESH_INFERENCE_MODEL_REPOSITORY": str(REPOSITORY),
        "MEDIAMESH_INFERENCE_PORT": str(port),
        "MEDIAMESH_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([python, "-m", "mediamesh.inference"], env=environment)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def load(port: int, process: psutil.Process, method: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Load the server from a process of its own; return what was seen."""
    before = process.cpu_times()
    answered = _answered(port)
    output = subprocess.run(
        [
            sys.executable, "-m", "tests.benchmarks.load", "--port", str(port), "--model", MODEL, "--method", method,
            "--in-flight", str(in_flight), "--seconds", str(seconds),
        ],
        check=True, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    after = process.cpu_times()
    seen = json.loads(output.stdout)
    spent = after.user + after.system - before.user - before.system
    count = _answered(port) - answered
    return {
        "per_s": seen["per_s"],
        "p50_ms": float(np.percentile(seen["seconds"], 50)) * 1e3,
        "p99_ms": float(np.percentile(seen["seconds"], 99)) * 1e3,
        "server_cpu_ms": spent / count * 1e3,
        "client_cpu_ms": seen["client_cpu_ms"],
    }


def _answered(port: int) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        statistics_of = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelStatistics",
            pb.ModelStatisticsRequest.SerializeToString,
            pb.ModelStatisticsResponse.FromString,
        )
        return int(statistics_of(pb.ModelStatisticsRequest(name=MODEL)).model_stats[0].inference_stats.success.count)


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return what was seen in every round, by what was measured; each is held against raw runs right before it."""
    seen: dict[str, list[dict[str, float]]] = defaultdict(list)
    with server(sys.executable) as (port, process):
        for _ in range(options.rounds):
            for method in ("unary", "stream"):
                for in_flight in IN_FLIGHT:
                    raws = {name: raw(*how, options.seconds / 2) for name, how in RAW.items()}
                    for name, one in raws.items():
                        seen[f"raw, {name}"].append(one)
                    best = max(raws.values(), key=lambda one: one["per_s"])
                    one = load(port, process, method, in_flight, options.seconds)
                    one["ratio"] = one["per_s"] / best["per_s"]
                    spent = one["server_cpu_ms"] + one["client_cpu_ms"]
                    one["cpu_ratio"] = best["server_cpu_ms"] / spent
                    one["beyond_run_ms"] = one["server_cpu_ms"] - best["server_cpu_ms"]
                    seen[f"{method}, {in_flight} in flight"].append(one)
    return seen


def report(out: Path, seen: dict[str, list[dict[str, float]]]) -> None:
    """Print a table, write JSON and a plot."""
    console = Console()
    rows = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in seen.items()
    }
    table = Table(title=f"{MODEL}, {PICTURE.nbytes // 1000} KB a request, {len(os.sched_getaffinity(0))} cores for all")
    columns = {
        "per_s": "a second", "ratio": "of raw", "cpu_ratio": "by CPU", "p50_ms": "p50 ms", "p99_ms": "p99 ms",
        "server_cpu_ms": "CPU ms", "beyond_run_ms": "beyond session.run", "client_cpu_ms": "load generator's CPU ms",
    }  # fmt: skip
    for heading in ("", *columns.values()):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.2f}" if key in row else "" for key in columns))
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "inference.json").write_text(json.dumps({"rounds": seen, "medians": rows}, indent=1))
    _plot(out / "inference.png", rows)
    console.print(f"written: {out / 'inference.json'}, {out / 'inference.png'}", soft_wrap=True)


def _plot(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    places = np.arange(len(IN_FLIGHT))
    for shift, method in ((-0.2, "unary"), (0.2, "stream")):
        own = [rows[f"{method}, {in_flight} in flight"] for in_flight in IN_FLIGHT]
        left.bar(places + shift, [row["ratio"] for row in own], 0.38, label=method)
        right.plot([str(n) for n in IN_FLIGHT], [row["p50_ms"] for row in own], "o-", label=f"{method} p50")
        right.plot([str(n) for n in IN_FLIGHT], [row["p99_ms"] for row in own], "o--", label=f"{method} p99")
    left.axhline(1, color="black", linewidth=0.8)
    left.set(
        xticks=places,
        xticklabels=[str(n) for n in IN_FLIGHT],
        xlabel="in flight",
        title="Throughput, share of raw onnxruntime",
    )
    right.set(xlabel="in flight", yscale="log", title="Latency, ms")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    report(options.out, measure(options))


if __name__ == "__main__":
    main()
