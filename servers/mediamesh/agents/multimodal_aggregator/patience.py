"""How long inputs have been silent, by a clock that stands still while nobody waits for them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["Patience"]


class Patience:
    """Tells which inputs have given nothing for some time.

    Only time spent waiting counts: while the reader of the results is slow, nothing is taken in, and an input is not
    silent because it is not listened to.

    Args:
        sources: The inputs.
        seconds: After how many an input is silent.
        clock: Seconds that only grow.
    """

    def __init__(self, sources: Iterable[str], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._waited = dict.fromkeys(sources, 0.0)
        self._told: set[str] = set()

    @contextmanager
    def waiting(self) -> Generator[float | None]:
        """Count the block as waiting; gives the seconds until one more input will be silent, None where all are."""
        waited = [waited for source, waited in self._waited.items() if source not in self._told]
        begin = self._clock()
        try:
            yield max(0.0, self._seconds - max(waited)) if waited else None
        finally:
            passed = self._clock() - begin
            for source in self._waited:
                self._waited[source] += passed

    def silent(self) -> list[str]:
        """Return the inputs that became silent since they were asked for."""
        found = [one for one, waited in self._waited.items() if waited >= self._seconds and one not in self._told]
        self._told.update(found)
        return found

    def heard(self, source: str) -> None:
        """Note that an input gave something."""
        self._waited[source] = 0.0
        self._told.discard(source)

    def ended(self, source: str) -> None:
        """Note that an input will give nothing more, and is not waited for."""
        del self._waited[source]
