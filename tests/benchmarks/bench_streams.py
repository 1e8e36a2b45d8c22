"""What streams cost: the broker through Envoy beside a bare grpc.aio relay, and beside Valkey's own XREAD and pub/sub.

All variants take turns in one run. Events go from one publisher to 100 … 1000 subscribers, and over 1000 independent
streams; then streams are opened a hundred at once, 64 KB chunks go through as fast as they can, and streams idle.
Latency runs from the publisher's stamp to the subscriber's read; CPU time is that of each process, an event delivered.

A figure with `*` was taken while other programs used more than a third of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.streaming.parts import ROOT, Carrier, broker, door, plain_valkey, relay

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Mapping

KB = 1000
READERS = (100, 400, 600, 1000)
# Independent streams, events a second on each, bytes of each: what is asked for, and what two cores carry.
EACH = ((300, 10, KB), (1000, 3, 200), (300, 50, KB), (1000, 10, 200))
QUIET_CORES = 0.33
_NOISY = "*"
_NAMES = {
    "broker": "streams broker",
    "before": "broker before",
    "relay": "bare grpc.aio relay",
    "relay, uvloop": "bare relay, uvloop",
    "xread": "Valkey XREAD",
    "pubsub": "Valkey pub/sub",
}


async def quiet(patience: float) -> None:
    """Wait until little else runs, but not for ever."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        psutil.cpu_percent()
        await asyncio.sleep(0.4)
        if psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1) < QUIET_CORES:
            return


async def load(carrier: Carrier, kind: str, patience: float, **arguments: Any) -> dict[str, Any]:
    """Run one load in a process of its own and return what it saw."""
    words = {"kind": kind, "wire": carrier.wire, "target": carrier.target, "processes": dict(carrier.processes)}
    await quiet(patience)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.streaming.load", json.dumps(words | arguments),
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeError(f"{kind} over {carrier.wire} hung: {arguments}") from None
    if process.returncode:
        raise RuntimeError(f"{kind} over {carrier.wire} failed: {arguments}")
    seen: dict[str, Any] = json.loads(output)
    return seen


class Run:
    """One run of the benchmark: the variants and what was seen of each, case by case."""

    def __init__(self, options: argparse.Namespace, carriers: Mapping[str, Carrier]) -> None:
        self._options = options
        self._carriers = carriers
        self.seen: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))

    async def case(self, title: str, names: list[str], kind: str, **arguments: Any) -> None:
        """Measure one case with each variant in turn."""
        for name in names:
            try:
                seen = await load(self._carriers[name], kind, self._options.patience, **arguments)
            except RuntimeError as error:
                print(error, flush=True)
                continue
            self.seen[title][name].append(seen)
            print(f"{title}, {name}: {_line(seen)}", flush=True)

    async def all(self) -> None:
        """Measure everything, the rounds one after the other."""
        options = self._options
        every, brokers = list(self._carriers), [name for name in self._carriers if name in {"broker", "before"}]
        times = {"seconds": options.seconds, "warm": 1.0}
        for number in range(options.rounds):
            turn = every if number % 2 == 0 else every[::-1]
            if "fan" in options.parts:
                for readers in options.readers:
                    case = {"streams": 1, "readers": readers, "rate": 50, "size": KB}
                    await self.case(f"1 to {readers}, 50/s of 1 KB", turn, "events", **case, **times)
            if "each" in options.parts:
                for streams, rate, size in EACH:
                    if streams <= options.most_streams:
                        case = {"streams": streams, "readers": 1, "rate": rate, "size": size}
                        await self.case(
                            f"{streams} times 1 to 1, {rate}/s of {size} B", turn, "events", **case, **times
                        )
            if "initiation" in options.parts:
                await self.case("100 opened at once", brokers, "initiation", rounds=1 if options.short else 4)
            if "media" in options.parts:
                for streams in (1, 4):
                    case = {"streams": streams, "size": 64 * 1024}
                    await self.case(f"64 KB chunks on {streams} streams", brokers, "media", **case, **times)
            if "idle" in options.parts:
                streams = min(500, options.most_streams)
                for interval in (1, 600):
                    case = {"streams": streams, "heartbeat_seconds": interval, "seconds": options.seconds}
                    await self.case(f"idle, a heartbeat every {interval} s", brokers, "idle", **case)


def _line(seen: dict[str, Any]) -> str:
    words = [f"{key}={value:.4g}" for key, value in seen.items() if isinstance(value, float | int)]
    cores = (f"{name} {spent / seen['cpu']['wall']:.2f}" for name, spent in seen["cpu"].items() if name != "wall")
    return " ".join(words) + " · cores: " + ", ".join(cores)


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of what was seen, with cores and microseconds an event by process."""
    row: dict[str, Any] = {
        key: statistics.median(one[key] for one in rounds)
        for key, value in rounds[0].items()
        if isinstance(value, float | int)
    }
    row["cores"] = {
        name: statistics.median(one["cpu"][name] / one["cpu"]["wall"] for one in rounds)
        for name in rounds[0]["cpu"]
        if name != "wall"
    }
    count = row.get("delivered") or row.get("heartbeats") or math.nan
    wall = statistics.median(one["cpu"]["wall"] for one in rounds)
    row["us"] = {name: cores * wall / count * 1e6 for name, cores in row["cores"].items()}
    if "kb_per_stream" in rounds[0]:
        row["kb_per_stream"] = rounds[0]["kb_per_stream"]
    return row


def _by_process(values: Mapping[str, float], form: str) -> str:
    return " + ".join(
        f"{name} {value:{form}}" for name, value in values.items() if name not in {"load", "foreign", "stolen"}
    )


def report(run: Run, out: Path) -> None:
    """Print a table, write JSON and the plot."""
    console = Console(width=160)
    rows = {title: {name: medians(seen) for name, seen in by.items()} for title, by in run.seen.items()}
    table = Table(title=f"streams, {len(os.sched_getaffinity(0))} cores for all, load included")
    for heading in ("case", "by", "p50 ms", "p99 ms", "arrived", "events a frame", "cores", "us an event"):
        table.add_column(heading, justify="left" if heading in {"case", "by"} else "right")
    for title, by in rows.items():
        for name, row in by.items():
            if "p50_ms" in row and "mb_per_s" not in row:
                noisy = _NOISY if row["cores"]["foreign"] + row["cores"]["stolen"] > QUIET_CORES else ""
                table.add_row(
                    title, _NAMES[name] + noisy, f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}",
                    f"{row['delivered'] / row['expected']:.1%}", f"{row['events_per_message']:.2f}",
                    _by_process(row["cores"], ".2f"), _by_process(row["us"], ".0f"),
                )  # fmt: skip
        table.add_section()
    console.print(table)
    for title, by in rows.items():
        for name, row in by.items():
            if "p50_ms" not in row or "mb_per_s" in row:
                console.print(f"{title}, {_NAMES[name]}: {_words(row)}", soft_wrap=True, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    (out / "streams.json").write_text(json.dumps({"seen": run.seen, "medians": rows}, indent=1))
    console.print(f"written: {out / 'streams.json'}", soft_wrap=True)
    if fans := {title: by for title, by in rows.items() if title.startswith("1 to ")}:
        _plot(out / "streams.png", fans)
        console.print(f"written: {out / 'streams.png'}", soft_wrap=True)


def _words(row: dict[str, Any]) -> str:
    cores = _by_process(row["cores"], ".3f")
    if "mb_per_s" in row:
        speed = f"{row['mb_per_s']:.0f} MB/s, p50 {row['p50_ms']:.0f} ms"
        return f"{speed}, cores {cores}, us a chunk {_by_process(row['us'], '.0f')}"
    if "open_p99_ms" in row:
        return (
            f"open p50 {row['open_p50_ms']:.1f} ms, p99 {row['open_p99_ms']:.1f} ms; open, publish and read the first "
            f"event p50 {row['first_event_p50_ms']:.1f} ms, p99 {row['first_event_p99_ms']:.1f} ms; us a stream "
            f"{_by_process(row['us'], '.0f')}"
        )
    memory = _by_process(row["kb_per_stream"], ".0f")
    text = f"{row['streams']:.0f} streams: cores {cores}; KB a stream {memory}"
    if row["heartbeats"]:
        text += f"; {row['bytes_per_heartbeat']:.0f} bytes and us a heartbeat {_by_process(row['us'], '.0f')}"
    return text


def _plot(path: Path, rows: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    curves: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for by in rows.values():
        for name, row in by.items():
            curves[name].append((int(row["readers"]), row))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, points in curves.items():
        x = [readers for readers, _ in points]
        (line,) = left.plot(x, [row["p99_ms"] for _, row in points], "o-", label=f"{_NAMES[name]}, p99")
        left.plot(x, [row["p50_ms"] for _, row in points], "o:", color=line.get_color(), alpha=0.6)
        cores = [
            sum(v for k, v in row["cores"].items() if k not in {"load", "foreign", "stolen", "envoy"})
            for _, row in points
        ]
        right.plot(x, cores, "o-", color=line.get_color(), label=_NAMES[name])
    left.set(yscale="log", xlabel="subscribers of one stream, 50/s of 1 KB", title="Latency, ms (dotted: p50)")
    right.set(xlabel="subscribers of one stream, 50/s of 1 KB", title="Cores, without Envoy and load")
    left.legend(fontsize="small")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


async def measure(options: argparse.Namespace) -> Run:
    """Start everything, measure, stop everything."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        async def behind_a_door(name: str, carrier: Carrier) -> Carrier:
            return carrier if options.direct else await stack.enter_async_context(door(folder / name, carrier))

        carriers: dict[str, Carrier] = {}
        for name in options.variants:
            if name == "broker":
                carrier = await stack.enter_async_context(broker(folder / name))
            elif name == "before":
                carrier = await stack.enter_async_context(broker(folder / name, options.against))
            elif name.startswith("relay"):
                carrier = await stack.enter_async_context(
                    relay(folder / name, *(["--uvloop"] if "uvloop" in name else []))
                )
            else:
                plain = await stack.enter_async_context(plain_valkey(folder / name))
                carriers[name] = replace(plain, wire=name)
                continue
            carriers[name] = await behind_a_door(name, carrier)
        run = Run(options, carriers)
        await run.all()
        return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--short", action="store_true", help="one round of two seconds, at most 400 readers and 300 streams"
    )
    parser.add_argument("--parts", nargs="+", default=["fan", "each", "initiation", "media", "idle"])
    parser.add_argument("--readers", nargs="+", type=int, default=READERS)
    parser.add_argument("--variants", nargs="+", default=["broker", "relay", "xread", "pubsub"], choices=_NAMES)
    parser.add_argument("--against", type=Path, help="another source tree, whose broker takes turns as `before`")
    parser.add_argument("--direct", action="store_true", help="without Envoy")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for a quiet machine, each time")
    parser.add_argument("--out", type=Path, default=ROOT / ".mediamesh" / "benchmarks")
    options = parser.parse_args()
    options.most_streams = 300 if options.short else 1000
    if options.short:
        options.rounds, options.seconds = 1, 2.0
        options.readers = [readers for readers in options.readers if readers <= 400]
    if options.against:
        options.variants = [
            "broker",
            "before",
            *(name for name in options.variants if name not in {"broker", "before"}),
        ]
    report(asyncio.run(measure(options)), options.out)


if __name__ == "__main__":
    main()
