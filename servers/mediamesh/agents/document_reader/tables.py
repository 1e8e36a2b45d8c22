"""Tables: rows of short pieces of text that stand below each other in columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from mediamesh.agents.document_reader.layout import Rectangle, around, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Table", "find_tables"]

T = TypeVar("T")
_ONE_CELL = 0.6  # of a line's height: pieces of a row that are nearer are one cell
_NEXT_ROW = 2.0  # of a line's height: a row that is further below is no row of the table any more
_PROSE = 12.0  # cells so much wider than high, in most rows of two columns, are columns of prose


@dataclass(slots=True)
class _Cell(Generic[T]):
    place: Rectangle
    items: list[T]


@dataclass(slots=True)
class Table(Generic[T]):
    """A table as it lies on the page.

    Attributes:
        place: The rectangle about it.
        cells: Row by row, as many in each as there are columns; each the items in it, from the left; empty ones too.
    """

    place: Rectangle
    cells: list[list[list[T]]]

    @property
    def items(self) -> list[T]:
        """All items, row by row."""
        return [item for row in self.cells for cell in row for item in cell]


@dataclass(slots=True)
class _Run(Generic[T]):
    """Rows that may become a table."""

    rows: list[list[_Cell[T]]] = field(default_factory=list)
    columns: list[tuple[float, float]] = field(default_factory=list)

    def take(self, row: list[_Cell[T]]) -> bool:
        """Add a row, unless it lies too far below or one of its cells spans several columns."""
        if self.rows and not self._follows(row):
            return False
        columns = self.columns
        for cell in row:
            common = [span for span in columns if span[0] < cell.place.right and cell.place.left < span[1]]
            if len(common) > 1:
                return False
            own = (cell.place.left, cell.place.right)
            merged = (min(one[0] for one in (own, *common)), max(one[1] for one in (own, *common)))
            columns = sorted([merged, *(span for span in columns if span not in common)])
        self.rows.append(row)
        self.columns = columns
        return True

    def table(self) -> Table[T] | None:
        """Return the table, or None where it is none."""
        while self.rows and len(self.rows[-1]) < 2:
            self.rows.pop()
        if len(self.rows) < 2 or len(self.columns) < 2 or (len(self.columns) == 2 and len(self.rows) < 3):
            return None
        if self._is_prose():
            return None
        cells: list[list[list[T]]] = []
        for row in self.rows:
            cells.append([[] for _ in self.columns])
            for cell in row:
                cells[-1][self._column(cell)].extend(cell.items)
        return Table(around([cell.place for row in self.rows for cell in row]), cells)

    def _follows(self, row: list[_Cell[T]]) -> bool:
        last, place = around([cell.place for cell in self.rows[-1]]), around([cell.place for cell in row])
        return place.top - last.bottom <= _NEXT_ROW * min(cell.place.height for cell in row)

    def _column(self, cell: _Cell[T]) -> int:
        return next(number for number, span in enumerate(self.columns) if cell.place.left < span[1])

    def _is_prose(self) -> bool:
        shapes: list[list[float]] = [[] for _ in self.columns]
        for row in self.rows:
            for cell in row:
                shapes[self._column(cell)].append(cell.place.width / cell.place.height)
        return sum(float(np.median(column)) > _PROSE for column in shapes) >= 2


def find_tables(items: Sequence[T], of: Callable[[T], Rectangle]) -> list[Table[T]]:
    """Return the tables that lines of text make, from the top.

    A table has two columns and three rows at least, or three columns and two rows. Its rows follow each other, the
    first and the last have two cells or more, and no cell spans columns: a row in which one does ends the table.

    Args:
        items: The lines.
        of: Where a line is.
    """
    found: list[Table[T]] = []
    run: _Run[T] = _Run()
    for row in [*([*_cells(row, of)] for row in rows(items, of)), []]:
        if row and (run.rows or len(row) > 1) and run.take(row):
            continue
        if (table := run.table()) is not None:
            found.append(table)
        run = _Run()
        if len(row) > 1:
            run.take(row)
    return found


def _cells(row: Sequence[T], of: Callable[[T], Rectangle]) -> list[_Cell[T]]:
    cells: list[_Cell[T]] = []
    for item in row:
        place = of(item)
        if cells and place.left - cells[-1].place.right < _ONE_CELL * place.height:
            cells[-1] = _Cell(around([cells[-1].place, place]), [*cells[-1].items, item])
        else:
            cells.append(_Cell(place, [item]))
    return cells
