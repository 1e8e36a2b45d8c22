"""One page put together: lines in reading order, and the tables among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.agents.document_reader.layout import Line, Rectangle, frame, in_order
from mediamesh.agents.document_reader.tables import Table, find_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Page", "arrange"]


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read.

    Attributes:
        number: From 1.
        size: Width and height in pixels, which boxes are in.
        blocks: Its lines in reading order, as JSON.
        tables: Its tables from the top, as JSON.
        text: Its lines, those of one row of a table on one line with tabs between the cells.
    """

    number: int
    size: tuple[int, int]
    blocks: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    text: str


@dataclass(frozen=True, slots=True)
class _Placed:
    line: Line
    place: Rectangle


def arrange(number: int, size: tuple[int, int], lines: Sequence[Line]) -> Page:
    """Return the page that lines of text make."""
    if not lines:
        return Page(number, size, [], [], "")
    placed = [_Placed(line, place) for line, place in zip(lines, frame(lines), strict=True)]
    tables = find_tables(placed, lambda one: one.place)
    inside = {id(one) for table in tables for one in table.items}
    parts: list[_Placed | Table[_Placed]] = [*(one for one in placed if id(one) not in inside), *tables]
    ordered = in_order(parts, lambda part: part.place)
    blocks: list[dict[str, Any]] = []
    texts: list[str] = []
    for part in ordered:
        blocks.extend(_block(number, one.line) for one in (part.items if isinstance(part, Table) else [part]))
        texts.extend(_texts(part))
    return Page(number, size, blocks, [_table(number, table) for table in tables], "\n".join(texts))


def _block(number: int, line: Line) -> dict[str, Any]:
    return {"page": number, "text": line.text, "score": round(line.score, 4), "box": _box(line.box)}


def _table(number: int, table: Table[_Placed]) -> dict[str, Any]:
    corners = np.concatenate([one.line.box for one in table.items])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return {"page": number, "box": _box(box), "rows": [[_joined(cell) for cell in row] for row in table.cells]}


def _texts(part: _Placed | Table[_Placed]) -> list[str]:
    if isinstance(part, Table):
        return ["\t".join(map(_joined, row)) for row in part.cells]
    return [part.line.text]


def _joined(cell: Iterable[_Placed]) -> str:
    return " ".join(one.line.text for one in cell)


def _box(corners: np.ndarray[Any, Any]) -> list[list[float]]:
    return [[round(float(x), 1), round(float(y), 1)] for x, y in corners]
