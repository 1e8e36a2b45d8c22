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
    lowest watermark of all open inputs go out. Two bounds keep an input that lags from holding the others for ever: one
    that is idle counts as having got to ``max_delay`` before the latest item, and of more than ``max_items`` held the
    earliest go out in any case. What comes after that with an earlier time is late, and goes out at once. So items that
    are not late are in order, whatever comes.

    It is known by the clock alone which input is idle; that is for the caller to say. An input that gives slowly is
    not: media that is processed faster than it plays would otherwise tear its inputs apart.

    Args:
        sources: The inputs; nothing else may be added.
        max_delay: Most seconds between the earliest and the latest item held for inputs that are idle.
        max_items: Most items held.

    Attributes:
        held_most: Most items that were held at a time.
    """

    def __init__(self, sources: Iterable[str], *, max_delay: float, max_items: int) -> None:
        self._watermarks = dict.fromkeys(sources, -math.inf)
        self._idle: set[str] = set()
        self._max_delay, self._max_items = max_delay, max_items
        self._held: list[tuple[float, int, str, T]] = []
        self._latest = self._released = -math.inf  # of all that came in time; of what went out
        self._arrivals = count()  # items of one time go out as they came
        self.held_most = 0

    def add(self, source: str, time: float, item: T, *, watermark: float | None = None) -> list[Merged[T]]:
        """Take an item, and return what goes out now.

        Args:
            source: The input that it came on.
            time: Its time in seconds.
            item: What it is.
            watermark: Time before which the input gives nothing more; the item's own where nothing is said.
        """
        late = time < self._released
        if not late:
            heapq.heappush(self._held, (time, next(self._arrivals), source, item))
            self._latest = max(self._latest, time)
        out = self.advance(source, time if watermark is None else watermark)
        self.held_most = max(self.held_most, len(self._held))
        return [Merged(time, source, item, late=True), *out] if late else out

    def advance(self, source: str, watermark: float) -> list[Merged[T]]:
        """Note that an input lives and gives nothing before a time any more, and return what goes out now.

        A watermark never goes back; one of an input that has ended says nothing.
        """
        self._idle.discard(source)
        self._watermarks[source] = max(self._watermarks[source], watermark)
        return list(self._release())

    def idle(self, source: str) -> list[Merged[T]]:
        """Note that an input gives nothing for the time being, and return what goes out now."""
        self._idle.add(source)
        return list(self._release())

    def end(self, source: str) -> list[Merged[T]]:
        """Note that an input has ended, and return what goes out now: everything, after the last end."""
        return self.advance(source, math.inf)

    def _release(self) -> Iterator[Merged[T]]:
        reached = min(map(self._reached, self._watermarks), default=math.inf)
        while self._held and (self._held[0][0] <= reached or len(self._held) > self._max_items):
            time, _, source, item = heapq.heappop(self._held)
            self._released = time
            yield Merged(time, source, item, late=False)

    def _reached(self, source: str) -> float:
        own = self._watermarks[source]
        # Just beyond the bound: what lies exactly at it is held.
        return max(own, math.nextafter(self._latest - self._max_delay, -math.inf)) if source in self._idle else own
