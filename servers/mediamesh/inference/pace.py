"""How fast a model runs, as measured when it is loaded, and what follows from it for where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.inference.scheduling import Call
    from mediamesh.inference.session import Session

__all__ = ["Here", "Pace"]

# A run that takes less is done in the event loop: to a thread and back costs this much, or more where cores are busy.
_LONGEST_HERE_SECONDS = 100e-6
# How far runs may fall behind what was measured before they leave the event loop.
_TOLERANCE = 3.0
_STEP = 1.02


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
    wide: Session | None = None

    def here(self, session: Session) -> Here | None:
        """Return what runs requests in the event loop, for a model that is small enough."""
        if not 0 < self.seconds <= _LONGEST_HERE_SECONDS:
            return None
        return Here(session, self.seconds, self.size)


class Here:
    """Runs in the event loop: which requests, and for how long that goes well."""

    def __init__(self, session: Session, seconds: float, size: int) -> None:
        self.session = session
        self._most_items = int(_LONGEST_HERE_SECONDS / seconds)
        self._most_bytes = self._most_items * size
        self._usual = seconds * 1e9

    def takes(self, call: Call) -> bool:
        """Tell whether a request is small enough."""
        if call.items > self._most_items:
            return False
        return sum(tensor.nbytes for tensor in call.inputs.values()) <= self._most_bytes

    def keeps_pace(self, nanoseconds: int, items: int) -> bool:
        """Note a run; false once most runs have taken too long for a while.

        What is held against the limit goes up and down in steps, and so follows the median: a few runs that the kernel
        interrupted say nothing.
        """
        self._usual *= _STEP if nanoseconds > self._usual * items else 1 / _STEP
        return self._usual < _TOLERANCE * _LONGEST_HERE_SECONDS * 1e9
