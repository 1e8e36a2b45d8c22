"""Lines of a page in the order in which people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mediamesh.agents.document_reader.rectangles import Points

__all__ = ["Line", "Rectangle", "along_most", "around", "frame", "in_order", "rows"]

T = TypeVar("T")
_COLUMN_GAP = 1.0  # of a line's height: white between columns is at least so wide
_LEAST_BANDS = 2  # with text on either side of a gap: one row may have two pieces
_IN_A_ROW = 0.5  # of the lower line's height: so much is common to lines of one row


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text on a page.

    Attributes:
        text: What it says.
        score: Mean probability of its characters.
        box: Corners [4, 2] in pixels of the page, clockwise from where the text begins.
    """

    text: str
    score: float
    box: Points


@dataclass(frozen=True, slots=True)
class Rectangle:
    """An upright rectangle; x to the right and y down."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """How wide it is."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """How high it is."""
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        """Its middle between top and bottom."""
        return (self.top + self.bottom) / 2


def around(rectangles: Sequence[Rectangle]) -> Rectangle:
    """Return the rectangle about others."""
    return Rectangle(
        min(one.left for one in rectangles),
        min(one.top for one in rectangles),
        max(one.right for one in rectangles),
        max(one.bottom for one in rectangles),
    )


def frame(lines: Sequence[Line]) -> list[Rectangle]:
    """Return the lines as upright rectangles on the page turned so that its text lies straight.

    The direction of the text is the mean of the lines that point into the commonest quarter, each weighed by its
    length. So pages that lie on a side, upside down or askew are read like others.
    """
    directions = np.array([line.box[1] - line.box[0] for line in lines])
    x, y = directions[along_most([line.box for line in lines])].sum(axis=0)
    along = np.array([x, y]) / np.hypot(x, y)
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    return [Rectangle(*(line.box @ axes).min(axis=0), *(line.box @ axes).max(axis=0)) for line in lines]


def along_most(boxes: Sequence[Points]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which of the boxes' texts point into the quarter, right or down or left or up, of the most text."""
    directions = np.array([box[1] - box[0] for box in boxes])
    quarters = np.round(np.arctan2(directions[:, 1], directions[:, 0]) / (np.pi / 2)).astype(int) % 4
    lengths = np.bincount(quarters, weights=np.hypot(*directions.T), minlength=4)
    commonest: np.ndarray[Any, np.dtype[np.bool_]] = quarters == lengths.argmax()
    return commonest


def rows(items: Sequence[T], of: Callable[[T], Rectangle]) -> list[list[T]]:
    """Return the items row by row from the top, each row from the left.

    Args:
        items: What is to be sorted.
        of: Where an item is.
    """
    found: list[list[T]] = []
    for item in sorted(items, key=lambda one: of(one).middle):
        mine = of(item)
        if found:
            last = around([of(one) for one in found[-1]])
            common = min(mine.bottom, last.bottom) - max(mine.top, last.top)
            if common >= _IN_A_ROW * min(mine.height, last.height):
                found[-1].append(item)
                continue
        found.append([item])
    return [sorted(row, key=lambda one: of(one).left) for row in found]


def in_order(items: Sequence[T], of: Callable[[T], Rectangle]) -> list[T]:
    """Return the items in reading order: from the top, columns from the left, each column to its end.

    The page is cut into bands by the white between its rows. The longest run of bands through which one white gap goes,
    with text in two bands or more on either side, is columns; what is above it and below it is read before and after.

    Args:
        items: What is to be sorted.
        of: Where an item is.
    """
    if len(items) < 2:
        return list(items)
    bands = _bands(items, of)
    gap_width = _COLUMN_GAP * float(np.median([of(item).height for item in items]))
    first, behind, gap = _columns(bands, of, gap_width)
    if gap is None:
        return [item for row in rows(items, of) for item in row]
    inside = [item for band in bands[first:behind] for item in band]
    parts = (
        [item for band in bands[:first] for item in band],
        [item for item in inside if of(item).right <= gap],
        [item for item in inside if of(item).right > gap],
        [item for band in bands[behind:] for item in band],
    )
    return [item for part in parts for item in in_order(part, of)]


def _bands(items: Sequence[T], of: Callable[[T], Rectangle]) -> list[list[T]]:
    """Return the items in groups between which the page is white from side to side."""
    found: list[list[T]] = []
    reached = -np.inf
    for row in rows(items, of):
        place = around([of(one) for one in row])
        # Lines of small type touch: what they have in common must be more than their boxes' margins.
        if found and place.top + 0.25 * min(of(one).height for one in row) < reached:
            found[-1].extend(row)
        else:
            found.append(list(row))
        reached = max(reached, place.bottom)
    return found


def _columns(
    bands: Sequence[Sequence[T]], of: Callable[[T], Rectangle], gap_width: float
) -> tuple[int, int, float | None]:
    """Return the longest run of bands that are columns: first, behind, and where the gap begins, or None."""
    places = [of(item) for band in bands for item in band]
    lefts, rights = (np.array([getattr(place, side) for place in places]) for side in ("left", "right"))
    numbers = np.repeat(np.arange(len(bands)), [len(band) for band in bands])
    best: tuple[int, int, float | None] = (0, 0, None)
    for begin in np.unique(rights):  # a gap begins where a line ends
        before, after = rights <= begin, lefts >= begin + gap_width
        blocked = np.bincount(numbers[~before & ~after], minlength=len(bands)) > 0
        edges = np.flatnonzero(np.diff(np.r_[True, blocked, True]))
        for first, behind in zip(edges[::2], edges[1::2], strict=True):
            inside = (numbers >= first) & (numbers < behind)
            sides = [len(np.unique(numbers[inside & side])) for side in (before, after)]
            if min(sides) >= _LEAST_BANDS and behind - first > best[1] - best[0]:
                best = (int(first), int(behind), float(begin))
    return best
