"""What a server and its children use, and what else went on on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import psutil

__all__ = ["Noise", "cpu_seconds", "processes", "resident_bytes"]


def processes(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and all below it."""
    return _sum(process, lambda one: sum(one.cpu_times()[:2]))


def resident_bytes(process: psutil.Process) -> float:
    """Return the resident memory of a process and all below it; pages that they share count once for each."""
    return _sum(process, lambda one: one.memory_info().rss)


def _sum(process: psutil.Process, figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for one in processes(process):
        with suppress(psutil.Error):
            total += figure(one)
    return total


class Noise:
    """What others took of the machine while a block ran.

    Attributes:
        foreign: Cores that were busy with nothing that was measured; set at the end.
        stolen: Cores that the host of this virtual machine took; set at the end.
    """

    foreign = stolen = 0.0

    def __enter__(self) -> Self:
        self._begin, self._before = time.perf_counter(), psutil.cpu_times()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._seconds, after = time.perf_counter() - self._begin, psutil.cpu_times()
        spent = {name: getattr(after, name) - getattr(self._before, name) for name in after._fields}
        self.stolen = spent.get("steal", 0.0) / self._seconds
        self._busy = sum(spent[name] for name in ("user", "system", "nice", "irq", "softirq") if name in spent)

    def without(self, own_seconds: float) -> Self:
        """Take the CPU time off that was measured."""
        self.foreign = max(0.0, (self._busy - own_seconds) / self._seconds)
        return self
