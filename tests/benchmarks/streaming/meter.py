"""What a load sees: latencies of stamped events, and the CPU time of the processes that carry them."""

from __future__ import annotations

import os
import time
from array import array
from typing import TYPE_CHECKING

import numpy as np
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Cpu", "Meter", "filler", "stamped"]

_MARK = b"@@"
_DIGITS = 19
_NEVER = 1 << 63


def filler(size: int) -> str:
    """Return what follows the stamp in a text of so many bytes."""
    return "x" * (size - len(_MARK) - _DIGITS)


def stamped(rest: str) -> str:
    """Return a text that tells when it was made."""
    return f"@@{time.perf_counter_ns():0{_DIGITS}d}{rest}"


class Meter:
    """Takes messages with stamped events in them, and notes those that were sent within its window."""

    def __init__(self) -> None:
        self._begin, self._end = _NEVER, _NEVER
        self._taken = array("q")
        self.messages = 0
        self.events = 0
        self.sent = 0

    def open(self, seconds: float) -> None:
        """Let the window begin now."""
        self._begin = time.perf_counter_ns()
        self._end = self._begin + int(seconds * 1e9)

    def is_open(self) -> bool:
        """Say whether what is sent now counts."""
        return self._begin <= time.perf_counter_ns() < self._end

    def reader(self, size: int) -> Callable[[bytes], None]:
        """Return what takes a message, whose events carry texts of so many bytes."""
        clock, step = time.perf_counter_ns, size

        def read(message: bytes) -> None:
            now = clock()
            self.messages += 1
            at = message.find(_MARK)
            while at >= 0:
                stamp = int(message[at + 2 : at + 2 + _DIGITS])
                self.events += 1
                if self._begin <= stamp < self._end:
                    self._taken.append(now - stamp)
                at = message.find(_MARK, at + step)

        return read

    def report(self, expected: int) -> dict[str, float]:
        """Return milliseconds and the share that arrived."""
        taken = np.frombuffer(self._taken, dtype=np.int64) / 1e6 if self._taken else np.array([np.nan])
        return {
            "p50_ms": float(np.percentile(taken, 50)),
            "p99_ms": float(np.percentile(taken, 99)),
            "max_ms": float(taken.max()),
            "delivered": len(self._taken),
            "expected": expected,
            "events_per_message": self.events / max(1, self.messages),
        }


class Cpu:
    """CPU seconds of processes by name, of this one (``load``), and of all that is none of them (``foreign``)."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in {**processes, "load": os.getpid()}.items()}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        found = {}
        for name, process in self._processes.items():
            times = process.cpu_times()
            found[name] = times.user + times.system
        whole = psutil.cpu_times()
        found["foreign"] = whole.user + whole.nice + whole.system + whole.irq + whole.softirq - sum(found.values())
        # What the machine under this one took away.
        return found | {"stolen": whole.steal, "wall": time.perf_counter()}

    def spent(self) -> dict[str, float]:
        """Return what was spent since it was made, and the ``wall`` clock's seconds."""
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}
