"""Merges results of several inputs by time, with reordering that is bounded."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Merge", "Merged"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Merged(Generic[T]):
    """An item at its place in the merged order.

    Attributes:
        time: Its time in seconds.
        source: The input that it came on.
        item: What was given.
        late: Whether an item of a later time went out before it.
    """

    time: float
    source: str
    item: T
    late: bool


class Merge(Generic[T]):
    """Holds items back until no input that is still open can give an earlier one, or until a bound is reached.

    Each input has a watermark: the time before which it will give nothing more, as far as it knows. Items up to the
    lowest watermark of all open inputs go out. When the times that are held span more than ``max_delay`` seconds, or
    there are more than ``max_items``, the earliest go out without waiting; what comes after that with an earlier time
    is late, and goes out at once. So items that are not late are in order, whatever comes.

    The bound is on media time, not on the clock: how fast an input is read changes nothing about where an item goes
    once it is held, and media that is processed faster than it plays is merged like media that plays.

    Args:
        sources: The inputs; nothing else may be added.
        max_delay: Most seconds between the earliest and the latest item held.
        max_items: Most items held.

    Attributes:
        held_most: Most items that were held at a time.
    """

    def __init__(self, sources: Iterable[str], *, max_delay: float, max_items: int) -> None:
        self._watermarks = dict.fromkeys(sources, -math.inf)
        self._max_delay, self._max_items = max_delay, max_items
        self._held: list[tuple[float, int, str, T]] = []
        self._latest = -math.inf  # of what is held or went out
        self._released = -math.inf
        self._arrivals = count()  # items of one time go out as they came
        self.held_most = 0

    def add(self, source: str, time: float, item: T, *, watermark: float | None = None) -> list[Merged[T]]:
        """Take an item, and return what goes out now, in order.

        Args:
            source: The input that it came on.
            time: Its time in seconds.
            item: What it is.
            watermark: Time before which the input gives nothing more; the item's own where nothing is said.
        """
        if time < self._released:
            late = [Merged(time, source, item, late=True)]
            return [*late, *self.advance(source, time if watermark is None else watermark)]
        heapq.heappush(self._held, (time, next(self._arrivals), source, item))
        self._latest = max(self._latest, time)
        out = self.advance(source, time if watermark is None else watermark)
        self.held_most = max(self.held_most, len(self._held))
        return out

    def advance(self, source: str, watermark: float) -> list[Merged[T]]:
        """Note that an input gives nothing before a time any more, and return what goes out now.

        A watermark never goes back; one of an input that has ended says nothing.
        """
        self._watermarks[source] = max(self._watermarks[source], watermark)
        return list(self._release())

    def end(self, source: str) -> list[Merged[T]]:
        """Note that an input has ended, and return what goes out now: everything, after the last end."""
        return self.advance(source, math.inf)

    def _release(self) -> Iterator[Merged[T]]:
        reached = min(self._watermarks.values(), default=math.inf)
        while self._held and (self._held[0][0] <= reached or self._full()):
            time, _, source, item = heapq.heappop(self._held)
            self._released = time
            yield Merged(time, source, item, late=False)

    def _full(self) -> bool:
        return len(self._held) > self._max_items or self._latest - self._held[0][0] > self._max_delay
