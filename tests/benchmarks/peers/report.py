"""Tables and a plot of the comparison: medians over the rounds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["medians", "plot", "show"]

Row = dict[str, Any]
RAW = "raw onnxruntime"


def medians(rows: Sequence[Row]) -> dict[tuple[str, str, int], Row]:
    """Return the medians over the rounds, by model, server and requests in flight."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["model"], row["server"], row["in_flight"]].append(row)
    return {
        key: {
            name: statistics.median(row[name] for row in group)
            for name, value in group[0].items()
            if isinstance(value, int | float)
        }
        for key, group in groups.items()
    }


def show(console: Console, found: Mapping[tuple[str, str, int], Row], in_flight: Sequence[int]) -> None:
    """Print a table for each model, the best throughput first."""
    for model in dict.fromkeys(model for model, _, _ in found):
        table = Table(title=model)
        for heading in (
            "server",
            *(f"{n}: per s, p50/p99 ms" for n in in_flight),
            "of raw",
            "CPU ms",
            "RSS MB idle/loaded",
            "ready s",
            "noise",
        ):
            table.add_column(heading, justify="left" if heading == "server" else "right")
        best = _best(found, model)
        for server in sorted(best, key=lambda name: -best[name]):
            own = [found.get((model, server, n)) for n in in_flight]
            last = next(row for row in reversed(own) if row)
            cells = [
                f"{row['per_s']:,.0f}, {row['p50_ms']:.1f}/{row['p99_ms']:.1f}" if row else "failed" for row in own
            ]
            share = f"{best[server] / best[RAW]:.2f}" if RAW in best else ""
            memory = f"{last['idle_mb']:.0f}/{last['loaded_mb']:.0f}" if last.get("loaded_mb") else ""
            ready = f"{last['ready_s']:.1f}" if last.get("ready_s") else ""
            noise = f"{max(row['foreign'] + row['stolen'] for row in own if row):.2f}"
            table.add_row(server, *cells, share, f"{last['cpu_ms']:.2f}", memory, ready, noise)
        console.print(table)


def plot(path: Path, found: Mapping[tuple[str, str, int], Row], in_flight: Sequence[int]) -> None:
    """Draw throughput as bars and the latency of the slowest of a hundred as points, a row for each model."""
    models = list(dict.fromkeys(model for model, _, _ in found))
    figure, axes = plt.subplots(len(models), 2, figsize=(11, 3.3 * len(models)), layout="constrained", squeeze=False)
    for (left, right), model in zip(axes, models, strict=True):
        best = _best(found, model)
        servers = sorted(best, key=lambda name: best[name])
        places = np.arange(len(servers))
        for index, n in enumerate(in_flight):
            own = [found.get((model, server, n), {}) for server in servers]
            shift = (index - (len(in_flight) - 1) / 2) * 0.26
            left.barh(places + shift, [row.get("per_s", 0) for row in own], 0.24, label=f"{n} in flight")
            right.plot([row.get("p99_ms", np.nan) for row in own], places, "o", label=f"{n} in flight")
        left.set(yticks=places, yticklabels=servers, title=f"{model}: answers a second")
        right.set(yticks=places, yticklabels=[], xscale="log", title="p99, ms")
        right.grid(visible=True, which="both", axis="x", alpha=0.3)
        left.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _best(found: Mapping[tuple[str, str, int], Row], model: str) -> dict[str, float]:
    best: dict[str, float] = {}
    for (own, server, _), row in found.items():
        if own == model:
            best[server] = max(best.get(server, 0.0), row["per_s"])
    return best
