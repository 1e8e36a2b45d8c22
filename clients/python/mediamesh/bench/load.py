"""Load on a server: so many requests in flight, or so many a second, whatever the server does.

In a closed loop each of N callers sends its next request when it has its answer. In an open loop requests are due at
the times of a Poisson process, and a request's latency counts from the time at which it was due: neither a slow server
nor a slow load generator hides what a caller would have waited (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mediamesh.bench.senders import OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediamesh.bench.senders import Send

__all__ = ["Level", "Seen", "closed_loop", "open_loop"]

# Requests of an open loop that are under way; later ones wait, and their latency counts from when they were due.
_MOST_IN_FLIGHT = 4096


@dataclass(frozen=True, slots=True)
class Level:
    """How much load.

    Attributes:
        kind: In flight (closed loop) or a second (open loop).
        value: How many.
    """

    kind: Literal["concurrency", "rate"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} in flight" if self.kind == "concurrency" else f"{self.value:g}/s"


@dataclass(slots=True)
class Seen:
    """What was seen of one level.

    Attributes:
        level: The load.
        begin: When measuring began, by ``time.perf_counter``.
        seconds: How long it was measured.
        latencies: Seconds of every request that was answered, of those that began after the warm-up.
        done: Answers within the measured time.
        errors: Requests that failed, by status.
        client_cores: CPU time of the load generator per second.
        late: Seconds by which requests of an open loop were sent after they were due.
    """

    level: Level
    begin: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    client_cores: float = 0.0
    late: list[float] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.done / self.seconds


class _Window:
    """The measured time, after a warm-up."""

    def __init__(self, level: Level, warm_up: float, seconds: float, tell: Callable[[Seen], None]) -> None:
        self.start = time.perf_counter()
        self.begin = self.start + warm_up
        self.end = self.begin + seconds
        self.seen = Seen(level, self.begin, seconds)
        self._cpu = 0.0
        self._tell = tell

    def note(self, begin: float, status: str) -> None:
        """Note a request that ends now."""
        now = time.perf_counter()
        if status != OK:
            self.seen.errors[status] += begin >= self.begin
            return
        self.seen.done += self.begin <= now < self.end
        if begin >= self.begin:
            self.seen.latencies.append(now - begin)

    async def watch(self) -> None:
        """Tell how it goes, and take the CPU time of the load generator."""
        await asyncio.sleep(self.begin - time.perf_counter())
        cpu, begin = time.process_time(), time.perf_counter()
        while (left := self.end - time.perf_counter()) > 0:
            await asyncio.sleep(min(left, 0.25))
            self._tell(self.seen)
        self.seen.client_cores = (time.process_time() - cpu) / (time.perf_counter() - begin)


async def closed_loop(
    send: Send, in_flight: int, *, warm_up: float, seconds: float, tell: Callable[[Seen], None]
) -> Seen:
    """Keep so many requests in flight.

    Args:
        send: Sends one and returns its status.
        in_flight: How many.
        warm_up: Seconds before the measured time.
        seconds: The measured time.
        tell: Called a few times a second.
    """
    window = _Window(Level("concurrency", in_flight), warm_up, seconds, tell)

    async def caller() -> None:
        while (begin := time.perf_counter()) < window.end:
            status = await send()
            window.note(begin, status)
            if status != OK:
                await asyncio.sleep(0.01)  # a server that refuses at once is not to be drowned in requests

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(window.watch())
        for _ in range(in_flight):
            tasks.create_task(caller())
    return window.seen


async def open_loop(
    send: Send, rate: float, *, seed: int, warm_up: float, seconds: float, tell: Callable[[Seen], None]
) -> Seen:
    """Send so many requests a second, at the times of a Poisson process; arguments as `closed_loop` has them."""
    window = _Window(Level("rate", rate), warm_up, seconds, tell)
    loop, over, stopped = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    due: deque[float] = deque()
    running = 0

    async with asyncio.TaskGroup() as tasks:

        def start() -> None:
            nonlocal running
            while due and running < _MOST_IN_FLIGHT:
                running += 1
                tasks.create_task(one(due.popleft()))

        async def one(when: float) -> None:
            nonlocal running
            if when >= window.begin:
                window.seen.late.append(time.perf_counter() - when)
            window.note(when, await send())
            running -= 1
            start()

        def fire(when: float) -> None:
            due.append(when)
            start()

        def pace() -> None:
            # A thread sleeps to the microsecond; an event loop to the millisecond, which small models answer in.
            times, when = random.Random(seed), window.start  # noqa: S311 - times, no secret
            while (when := when + times.expovariate(rate)) < window.end and not stopped.is_set():
                if (pause := when - time.perf_counter()) > 0:
                    time.sleep(pause)
                loop.call_soon_threadsafe(fire, when)
            loop.call_soon_threadsafe(over.set)

        pacing = loop.run_in_executor(None, pace)
        try:
            await window.watch()
            await over.wait()
        finally:
            stopped.set()
            await pacing
    return window.seen
