"""Loads something that carries streams, from a process of its own; prints JSON of what was seen.

Its one argument is JSON: ``kind`` (a function below), ``wire``, ``target`` (``host:port``), ``processes`` (ids of those
whose CPU time is read, by name) and what the function takes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import uvloop

from tests.benchmarks.streaming.meter import Cpu, Meter
from tests.benchmarks.streaming.wires import WIRES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.streaming.wires import Broker, Wire

_CONNECTIONS = 4
# What is under way when the window closes may still arrive for so long.
_STRAGGLE_SECONDS = 1.0
_TICK_SECONDS = 0.001
_AT_ONCE = 100
_FEWEST = 16


async def paced(wire: Wire, meter: Meter, streams: int, rate: float, seconds: float) -> None:
    """Publish to every stream so often a second, the streams one after the other and not all at once."""
    begin = time.perf_counter()
    step = 1 / (rate * streams)
    number = 0
    while (now := time.perf_counter()) < begin + seconds:
        while number * step <= now - begin:
            meter.sent += meter.is_open()
            wire.publish(number % streams)
            number += 1
        await asyncio.sleep(max(_TICK_SECONDS, begin + number * step - time.perf_counter()))


async def events(
    wire: Wire, processes: Mapping[str, int], *, streams: int, readers: int, rate: float, size: int,
    seconds: float, warm: float,
) -> dict[str, Any]:  # fmt: skip
    """Publish at a pace to streams with so many readers each; the latency is that from publisher to reader."""
    meter = Meter()
    await wire.open(streams)
    read = meter.reader(size)
    for begin in range(0, streams * readers, _AT_ONCE):
        numbers = range(begin, min(streams * readers, begin + _AT_ONCE))
        await asyncio.gather(*(wire.subscribe(number // readers, read) for number in numbers))
    gc.freeze()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(paced(wire, meter, streams, rate, warm + seconds + _STRAGGLE_SECONDS / 2))
        await asyncio.sleep(warm)
        cpu = Cpu(processes)
        meter.open(seconds)
        await asyncio.sleep(seconds)
        spent = cpu.spent()
    await asyncio.sleep(_STRAGGLE_SECONDS / 2)
    return meter.report(meter.sent * readers) | {"cpu": spent, "streams": streams, "readers": readers, "rate": rate}


async def initiation(wire: Broker, processes: Mapping[str, int], *, rounds: int) -> dict[str, Any]:
    """Open a hundred streams at once, then publish to all and read them at once, again and again."""
    await wire.connect()
    opened: list[float] = []
    first: list[float] = []

    async def at_once() -> None:
        begin = time.perf_counter()

        async def open_one() -> int:
            number = await wire.open_one()
            opened.append(time.perf_counter() - begin)
            return number

        numbers = await asyncio.gather(*(open_one() for _ in range(_AT_ONCE)))
        begin_reading = time.perf_counter()

        async def read_one(number: int) -> None:
            await asyncio.gather(wire.start(number), wire.subscribe(number, lambda _: None))
            first.append(time.perf_counter() - begin_reading)

        await asyncio.gather(*map(read_one, numbers))

    await at_once()
    opened.clear()
    first.clear()
    cpu = Cpu(processes)
    for _ in range(rounds):
        await at_once()
        await asyncio.sleep(0.1)
    spent = cpu.spent()
    percentiles = {
        f"{name}_p{share}_ms": float(np.percentile(taken, share)) * 1e3
        for name, taken in (("open", opened), ("first_event", first))
        for share in (50, 99)
    }
    return percentiles | {"cpu": spent, "delivered": len(first)}


async def media(
    wire: Broker, processes: Mapping[str, int], *, streams: int, size: int, seconds: float, warm: float
) -> dict[str, Any]:
    """Publish as fast as the broker acknowledges, 8 MiB in flight at most over all streams."""
    meter = Meter()
    await wire.open(streams)
    await asyncio.gather(*(wire.subscribe(number, meter.reader(size)) for number in range(streams)))
    most = max(_FEWEST, (8 << 20) // size // streams)
    end = time.perf_counter() + warm + seconds

    async def publish() -> None:
        while time.perf_counter() < end:
            for stream in range(streams):
                while wire.unacknowledged(stream) < most:
                    wire.publish(stream)
            await wire.progress()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish())
        await asyncio.sleep(warm)
        cpu, before = Cpu(processes), meter.events
        meter.open(seconds)
        await asyncio.sleep(seconds)
        spent, count = cpu.spent(), meter.events - before
    await asyncio.sleep(_STRAGGLE_SECONDS)
    report = meter.report(count)
    return report | {"cpu": spent, "delivered": count, "mb_per_s": count * size / spent["wall"] / 1e6}


async def idle(
    wire: Broker, processes: Mapping[str, int], *, streams: int, heartbeat_seconds: float, seconds: float
) -> dict[str, Any]:
    """Open streams that nothing happens on, with a reader each, and see what they and their heartbeats cost."""
    await wire.connect()
    before = _memory(processes)
    heartbeats = 0

    def read(message: bytes) -> None:
        nonlocal heartbeats
        heartbeats += 1

    for begin in range(0, streams, _AT_ONCE):
        numbers = await asyncio.gather(*(wire.open_one() for _ in range(min(_AT_ONCE, streams - begin))))
        subscribers = (wire.subscribe(n, read, heartbeat_seconds=heartbeat_seconds, wait=False) for n in numbers)
        await asyncio.gather(*subscribers)
    await asyncio.sleep(2 * heartbeat_seconds if heartbeat_seconds < seconds else 1)
    cpu, count, received = Cpu(processes), heartbeats, wire.bytes_in
    await asyncio.sleep(seconds)
    spent, count, received = cpu.spent(), heartbeats - count, wire.bytes_in - received
    after = _memory(processes)
    return {
        "cpu": spent,
        "streams": streams,
        "heartbeats": count,
        "bytes_per_heartbeat": received / max(1, count),
        "kb_per_stream": {name: (after[name] - before[name]) / streams / 1e3 for name in after},
    }


def _memory(processes: Mapping[str, int]) -> dict[str, int]:
    return {name: psutil.Process(pid).memory_info().rss for name, pid in processes.items()}


KINDS: dict[str, Any] = {"events": events, "initiation": initiation, "media": media, "idle": idle}


async def run(kind: str, wire: str, target: str, processes: dict[str, int], arguments: dict[str, Any]) -> None:
    """Run one load and print what was seen."""
    carrier: Any = WIRES[wire](target, arguments.get("size", 100), _CONNECTIONS)
    seen = await KINDS[kind](carrier, processes, **arguments)
    seen |= {"ended_early": carrier.ended_early, "other_frames": carrier.other_frames}
    await carrier.close()
    print(json.dumps(seen))


def main() -> None:
    """Read the argument and load."""
    arguments = json.loads(sys.argv[1])
    kind, wire, target, processes = (arguments.pop(name) for name in ("kind", "wire", "target", "processes"))
    uvloop.run(run(kind, wire, target, processes, arguments))


if __name__ == "__main__":
    main()
