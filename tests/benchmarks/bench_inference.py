"""What the inference server reaches of raw onnxruntime, server and load generator on the same cores.

A tiny net (784 -> 256 -> 10) shows what the server adds; EfficientNet-Lite0, 602 KB a request, what moving pictures
costs. Raw onnxruntime in its best configuration, ModelInfer and ModelStreamInfer at 1, 8 and 32 in flight, and with
``--against`` the server of another source tree, take turns in every round; the figures are medians over the rounds.

"By CPU" is the share of raw throughput that the CPU time of server and load generator together allows: what a machine
that does nothing else would show, and far less noisy than the share seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.inference.models import MLP, add_mlp, add_vendored, input_of
from tests.benchmarks.inference.raw import WAYS, raw
from tests.benchmarks.inference.servers import ROOT, Server, serving

mpl.use("Agg")
from matplotlib import pyplot as plt

IN_FLIGHT = (1, 8, 32)
METHODS = ("unary", "stream")
THIS = "this tree"
COLUMNS = {
    "per_s": "a second", "ratio": "of raw", "cpu_ratio": "by CPU", "p50_ms": "p50 ms", "p99_ms": "p99 ms",
    "server_cpu_us": "CPU µs", "beyond_run_us": "beyond session.run", "client_cpu_us": "load generator's CPU µs",
    "rss_mb": "MB",
}  # fmt: skip


def measure(options: argparse.Namespace, repository: Path) -> dict[str, list[dict[str, float]]]:
    """Return what was seen in every round, by what was measured; each is held against raw runs right before it."""
    seen: dict[str, list[dict[str, float]]] = defaultdict(list)
    trees = {THIS: ROOT} | ({str(options.against): options.against} if options.against else {})
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(repository, tree)) for name, tree in trees.items()}
        for _ in range(options.rounds):
            for model in options.models:
                for method in options.methods:
                    for in_flight in options.in_flight:
                        best = _raw(seen, repository, model, options.seconds / 2)
                        for name, server in random.sample(list(servers.items()), len(servers)):
                            one = _one(server, model, method, in_flight, options.seconds, best)
                            seen[f"{model}, {method}, {in_flight} in flight, {name}"].append(one)
    return seen


def _raw(seen: dict[str, list[dict[str, float]]], repository: Path, model: str, seconds: float) -> dict[str, float]:
    ways = {name: raw(repository, model, way, seconds) for name, way in WAYS.items()}
    for name, one in ways.items():
        seen[f"{model}, raw, {name}"].append(one)
    return max(ways.values(), key=lambda one: one["per_s"])


def _one(
    server: Server, model: str, method: str, in_flight: int, seconds: float, best: dict[str, float]
) -> dict[str, float]:
    one = server.load(model, method, in_flight, seconds)
    one["ratio"] = one["per_s"] / best["per_s"]
    one["cpu_ratio"] = best["server_cpu_us"] / (one["server_cpu_us"] + one["client_cpu_us"])
    one["beyond_run_us"] = one["server_cpu_us"] - best["server_cpu_us"]
    return one


def report(options: argparse.Namespace, seen: dict[str, list[dict[str, float]]]) -> None:
    """Print a table, write JSON and a plot."""
    console = Console(width=150)
    rows = {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in seen.items()
    }
    for model in options.models:
        size = input_of(model).nbytes / 1000
        table = Table(title=f"{model}, {size:.0f} KB a request, {len(os.sched_getaffinity(0))} cores for all")
        for heading in ("", *COLUMNS.values()):
            table.add_column(heading, justify="right")
        for name, row in rows.items():
            if name.startswith(f"{model}, "):
                cells = (
                    f"{row[key]:.3g}" if key in row and row[key] < 100 else f"{row.get(key, 0):.0f}" for key in COLUMNS
                )
                table.add_row(name.removeprefix(f"{model}, "), *(cell if cell != "0" else "" for cell in cells))
        console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "inference.json").write_text(json.dumps({"rounds": seen, "medians": rows}, indent=1))
    for model in options.models:
        _plot(options, model, rows)
    console.print(f"written: {options.out / 'inference.json'} and plots beside it", soft_wrap=True)


def _plot(options: argparse.Namespace, model: str, rows: dict[str, dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    places = np.arange(len(options.in_flight))
    ticks = [str(n) for n in options.in_flight]
    for number, method in enumerate(options.methods):
        own = [rows[f"{model}, {method}, {in_flight} in flight, {THIS}"] for in_flight in options.in_flight]
        left.bar(places + 0.4 * number - 0.2, [row["ratio"] for row in own], 0.38, label=method)
        right.plot(ticks, [row["p50_ms"] for row in own], "o-", label=f"{method} p50")
        right.plot(ticks, [row["p99_ms"] for row in own], "o--", label=f"{method} p99")
    left.axhline(1, color="black", linewidth=0.8)
    left.set(xticks=places, xticklabels=ticks, xlabel="in flight", title=f"{model}: share of raw onnxruntime")
    right.set(xlabel="in flight", yscale="log", title="Latency, ms")
    left.legend()
    right.legend()
    figure.savefig(options.out / f"inference_{model}.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--models", nargs="+", default=[MLP, "efficientnet_lite0_int8"])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--in-flight", nargs="+", type=int, default=IN_FLIGHT)
    parser.add_argument(
        "--repository", type=Path, help="more models; each takes pictures of [N, 3, 224, 224] as `input`"
    )
    parser.add_argument("--against", type=Path, help="another source tree, whose server takes turns with this one's")
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory)
        for model in options.models:
            if model == MLP:
                add_mlp(repository)
            elif options.repository and (options.repository / model).is_dir():
                shutil.copytree(options.repository / model, repository / model)
            else:
                add_vendored(repository, model)
        report(options, measure(options, repository))


if __name__ == "__main__":
    main()
