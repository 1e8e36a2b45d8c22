"""What was seen, as a table, as JSON and as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table

from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mediamesh.bench.load import Seen

__all__ = ["PERCENTILES", "as_json", "notes", "plot", "require_plot", "summary", "table"]

PERCENTILES = (50, 90, 95, 99)
# One core is all that a load generator in Python can use; near it the figures are its own, not the server's.
_BUSY_CORES = 0.9


def summary(seen: Seen) -> dict[str, Any]:
    """Return the figures of one level; latencies in milliseconds, None where nothing was answered."""
    row: dict[str, Any] = {
        seen.level.kind: seen.level.value,
        "throughput": seen.throughput,
        "requests": len(seen.latencies) + seen.errors.total(),
        "errors": dict(seen.errors),
        "client_cores": seen.client_cores,
        "client_is_the_limit": seen.client_cores > _BUSY_CORES,
    }
    for percent in PERCENTILES:
        row[f"p{percent}_ms"] = _milliseconds(seen.latencies, percent)
    row["max_ms"] = _milliseconds(seen.latencies, 100)
    if seen.level.kind == "rate":
        row["sent_late_p99_ms"] = _milliseconds(seen.late, 99)
    return row


def table(title: str, results: Sequence[Seen]) -> Table:
    """Return the figures of all levels for people."""
    made = Table(title=f"{title}\nlatency in ms; client is the load generator, in cores", box=box.SIMPLE_HEAD)
    made.add_column("load", no_wrap=True)
    for heading in ("per s", *(f"p{percent}" for percent in PERCENTILES), "max", "failed", "client"):
        made.add_column(heading, justify="right", no_wrap=True)
    for seen in results:
        row = summary(seen)
        times = [_figure(row[f"p{percent}_ms"]) for percent in PERCENTILES]
        per_second = f"{seen.throughput:,.1f}" if seen.throughput < 1000 else f"{seen.throughput:,.0f}"
        made.add_row(
            str(seen.level),
            per_second,
            *times,
            _figure(row["max_ms"]),
            f"{seen.errors.total():,}",
            f"{seen.client_cores:.2f}",
        )
    return made


def notes(results: Sequence[Seen]) -> list[str]:
    """Return a sentence for everything that the figures alone do not say."""
    said = []
    for seen in results:
        if seen.errors:
            errors = ", ".join(f"{count:,} {status}" for status, count in sorted(seen.errors.items()))
            said.append(f"{seen.level}: failed were {errors}.")
        if seen.client_cores > _BUSY_CORES:
            said.append(f"{seen.level}: the load generator was busy all the time; the server may do more.")
    return said


def as_json(about: dict[str, Any], results: Sequence[Seen]) -> dict[str, Any]:
    """Return everything for programs."""
    return {**about, "levels": [summary(seen) for seen in results]}


def require_plot() -> None:
    """See that a plot can be drawn, before anything is measured.

    Raises:
        InvalidRequest: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - brought by an extra
    except ImportError:
        raise InvalidRequest.of_field("--plot", "a plot needs matplotlib; pip install 'mediamesh[bench]'") from None
    mpl.use("Agg")


def plot(path: Path, title: str, results: Sequence[Seen]) -> None:
    """Draw latency over throughput, a line for the median and one for the slowest of a hundred."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - brought by an extra
    from matplotlib.ticker import LogFormatter  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for kind, marker in (("concurrency", "o"), ("rate", "s")):
        own = [seen for seen in results if seen.level.kind == kind and seen.latencies]
        if not own:
            continue
        across = [seen.throughput for seen in own]
        name = "closed loop" if kind == "concurrency" else "open loop"
        for percent, style in ((50, "-"), (99, "--")):
            up = [float(np.percentile(seen.latencies, percent)) * 1e3 for seen in own]
            color = "tab:blue" if kind == "concurrency" else "tab:orange"
            axes.plot(across, up, marker=marker, linestyle=style, color=color, label=f"p{percent}, {name}")
        for seen, left in zip(own, across, strict=True):
            axes.annotate(
                str(seen.level),
                (left, _milliseconds(seen.latencies, 50) or 0),
                xytext=(4, -11),
                textcoords="offset points",
                fontsize=8,
            )
    figure.suptitle(title, fontsize=10)
    axes.set(xlabel="answers a second", ylabel="latency, ms", yscale="log")
    for labels in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        labels(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.margins(y=0.15)
    # Room on the right for what is written beside the last point.
    axes.set_xlim(0, 1.18 * max([1.0, *(seen.throughput for seen in results)]))
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _milliseconds(seconds: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(seconds, percent)) * 1e3 if len(seconds) else None


def _figure(value: float | None) -> str:
    """Return milliseconds with three digits that matter."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
