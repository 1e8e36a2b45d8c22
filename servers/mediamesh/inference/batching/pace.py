"""How fast a model runs, as measured when it is loaded, and what follows from it for where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.inference.scheduling import size_of

if TYPE_CHECKING:
    from mediamesh.inference.scheduling import Call, Executor

__all__ = ["Here", "Pace"]

# A run that takes less is done in the event loop: to a thread and back costs this much, or more where cores are busy.
_LONGEST_HERE_SECONDS = 100e-6
# How far runs may fall behind that: where ten others are at work, a run of 50 µs takes 400, and so does all else.
_TOLERANCE = 10.0
_STEP = 1.02
# So many requests are left to the workers before the event loop is tried again.
_PASSES = 1000


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured at load.

    Attributes:
        seconds: One run of one item, where runs stay in the thread that asks; 0 when they do not, or were not measured.
        size: Bytes of the inputs of that run.
        wide: A session that uses all cores, for a request that is alone; None where it gains too little.
    """

    seconds: float = 0.0
    size: int = 0
    wide: Executor | None = None

    def here(self, session: Executor) -> Here | None:
        """Return what runs requests in the event loop, for a model that is small enough."""
        if not 0 < self.seconds <= _LONGEST_HERE_SECONDS:
            return None
        return Here(session, self.seconds, self.size)


class Here:
    """Runs in the event loop: which requests, and for how long that goes well."""

    def __init__(self, session: Executor, seconds: float, size: int) -> None:
        self.session = session
        self._most_items = int(_LONGEST_HERE_SECONDS / seconds)
        self._most_bytes = self._most_items * size
        self._measured = self._usual = seconds * 1e9
        self._passes = 0

    def takes(self, call: Call) -> bool:
        """Tell whether a request is small enough, and runs have not been too slow of late."""
        if self._passes:
            self._passes -= 1
            return False
        if call.items > self._most_items:
            return False
        return size_of(call.inputs) <= self._most_bytes

    def note(self, nanoseconds: int, items: int) -> None:
        """Note a run; once most have taken too long for a while, the next requests go to the workers.

        What is held against the limit goes up and down in steps, and so follows the median: a few runs that the kernel
        interrupted say nothing.
        """
        self._usual *= _STEP if nanoseconds > self._usual * items else 1 / _STEP
        if self._usual > _TOLERANCE * _LONGEST_HERE_SECONDS * 1e9:
            self._usual, self._passes = self._measured, _PASSES
