"""Lines of a page in the order in which people read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mediamesh.agents.document_reader.rectangles import Points

__all__ = ["Line", "Rectangle", "around", "frame", "in_order", "rows"]

T = TypeVar("T")
_COLUMN_GAP = 1.0  # of a line's height: white between columns is at least so wide
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
    quarters = np.round(np.arctan2(directions[:, 1], directions[:, 0]) / (np.pi / 2)).astype(int) % 4
    lengths = np.bincount(quarters, weights=np.hypot(*directions.T), minlength=4)
    x, y = directions[quarters == lengths.argmax()].sum(axis=0)
    along = np.array([x, y]) / np.hypot(x, y)
    axes = np.stack([along, [-along[1], along[0]]], axis=1)
    return [Rectangle(*(line.box @ axes).min(axis=0), *(line.box @ axes).max(axis=0)) for line in lines]


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
    """Return the longest run of bands that are columns: first, behind, and the middle of the gap, or None."""
    best: tuple[int, int, float | None] = (0, 0, None)
    white = [_white([of(item) for item in band]) for band in bands]
    for first in range(len(bands)):
        gaps = white[first]
        for behind in range(first + 1, len(bands) + 1):
            gaps = [gap for gap in _common(gaps, white[behind - 1]) if gap[1] - gap[0] >= gap_width]
            if not gaps:
                break
            if behind - first > best[1] - best[0]:
                middle = _parting(bands[first:behind], of, gaps)
                if middle is not None:
                    best = (first, behind, middle)
    return best


def _parting(
    bands: Sequence[Sequence[T]], of: Callable[[T], Rectangle], gaps: Sequence[tuple[float, float]]
) -> float | None:
    """Return the middle of the first gap that has text in two bands at least on either side."""
    for left, right in gaps:
        middle = (left + right) / 2
        before = sum(any(of(item).right <= middle for item in band) for band in bands)
        after = sum(any(of(item).left >= middle for item in band) for band in bands)
        if before >= 2 and after >= 2:
            return middle
    return None


def _white(rectangles: Sequence[Rectangle]) -> list[tuple[float, float]]:
    """Return the spans of x, from left to right, where nothing is."""
    spans: list[tuple[float, float]] = []
    reached = -1e9
    for one in sorted(rectangles, key=lambda rectangle: rectangle.left):
        if one.left > reached:
            spans.append((reached, one.left))
        reached = max(reached, one.right)
    return [*spans, (reached, 1e9)]


def _common(some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return where the spans of two lists overlap."""
    return [(max(a, c), min(b, d)) for a, b in some for c, d in others if max(a, c) < min(b, d)]
