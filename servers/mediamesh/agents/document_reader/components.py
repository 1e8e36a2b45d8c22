"""The connected parts of a mask, as runs of pixels in rows: no image library needed, and all in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Runs", "find_runs"]

Integers = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of neighbouring pixels in a row, in the order of rows and columns; all arrays are [runs].

    Attributes:
        rows: The row of each.
        starts: Its first column.
        ends: The column after its last one.
        labels: The component of each, from 0 without gaps in the order of their first runs.
    """

    rows: Integers
    starts: Integers
    ends: Integers
    labels: Integers

    @property
    def count(self) -> int:
        """How many components there are."""
        return int(self.labels.max()) + 1 if self.labels.size else 0


def find_runs(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Runs:
    """Return the runs of a mask [height, width]; pixels belong together at sides and at corners."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    above, below = _touching(rows, starts, ends, width + 2)
    _, labels = np.unique(_joined(len(rows), above, below), return_inverse=True)
    return Runs(rows, starts, ends, labels.reshape(-1))


def _touching(rows: Integers, starts: Integers, ends: Integers, stride: int) -> tuple[Integers, Integers]:
    """Return the pairs of runs in rows that follow each other and touch, the upper ones and the lower ones."""
    # Keys that grow along the runs; of the row below, the runs from the first that does not end before this one begins
    # to the last that does not begin after it ends.
    below = (rows + 1) * stride
    first = np.searchsorted(rows * stride + ends, below + starts, side="left")
    behind = np.searchsorted(rows * stride + starts, below + ends, side="right")
    counts = np.maximum(behind - first, 0)
    upper = np.repeat(np.arange(len(rows)), counts)
    offsets = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + offsets


def _joined(count: int, left: Integers, right: Integers) -> Integers:
    """Return for each of ``count`` things the least one that it is joined to by pairs, directly or by others."""
    roots = np.arange(count)
    while not np.array_equal(roots[left], roots[right]):
        least = np.minimum(roots[left], roots[right])
        np.minimum.at(roots, roots[left], least)
        np.minimum.at(roots, roots[right], least)
        while not np.array_equal(further := roots[roots], roots):
            roots = further
    return roots
