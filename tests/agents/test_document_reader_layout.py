"""Reading order and tables of lines whose places are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mediamesh.agents.document_reader.layout import Line
from mediamesh.agents.document_reader.page import Page, arrange

HEIGHT = 20.0


def line(text: str, left: float, top: float, width: float | None = None) -> Line:
    """A line of 20 pixels, each character 10 wide where nothing else is said."""
    right = left + (10.0 * len(text) if width is None else width)
    box = np.array([[left, top], [right, top], [right, top + HEIGHT], [left, top + HEIGHT]])
    return Line(text, 0.9, box)


def order(*lines: Line, turn: float = 0.0) -> list[str]:
    """Return the texts as they are read, of a page turned by degrees, whatever the order they are found in."""
    page = _page(*lines, turn=turn)
    return [block["text"] for block in page.blocks]


def _page(*lines: Line, turn: float = 0.0) -> Page:
    angle = math.radians(turn)
    axes = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    shuffled = np.random.default_rng(1).permutation(len(lines))
    turned = [Line(lines[number].text, 0.9, lines[number].box @ axes) for number in shuffled]
    return arrange(1, (1000, 1000), turned)


COLUMNS = [
    line("Heading over both", 100, 0, 800),
    *(line(f"left {number}", 0, 60 + 30 * number, 450) for number in range(5)),
    *(line(f"right {number}", 500, 60 + 30 * number, 450) for number in range(4)),
    line("Footing over both", 100, 260, 800),
]
TABLE = [
    [line("Item", 0, 0), line("Count", 300, 0), line("Price", 500, 0)],
    [line("wire", 0, 40), line("12", 320, 40), line("3.50", 505, 40)],
    [line("gears", 0, 80), line("18.25", 505, 80)],
    [line("oil", 0, 120), line("3", 330, 120), line("6.40", 505, 120)],
]


def test_lines_are_read_from_the_top() -> None:
    assert order(line("c", 0, 80), line("a", 0, 0), line("b", 5, 40)) == ["a", "b", "c"]


@pytest.mark.parametrize("turn", [0, 3, -8, 90, 180, 270])
def test_columns_are_read_to_their_ends_between_heading_and_footing(turn) -> None:
    assert order(*COLUMNS, turn=turn) == [line.text for line in COLUMNS]


def test_three_columns_are_read_one_after_the_other() -> None:
    lines = [line(f"{column} {row}", 340 * column, 30 * row, 300) for column in range(3) for row in range(4)]
    assert order(*lines) == [line.text for line in lines]


def test_two_pieces_of_one_row_are_no_columns() -> None:
    assert order(line("Name", 0, 0), line("Date", 600, 0), line("Text below", 0, 60)) == ["Name", "Date", "Text below"]


def test_a_row_is_read_from_the_left_though_its_pieces_differ_in_height() -> None:
    assert order(line("b", 200, 4), line("a", 0, 0), line("c", 400, 2)) == ["a", "b", "c"]


@pytest.mark.parametrize("turn", [0, 90, 180, 2])
def test_a_table_is_read_row_by_row_and_cells_that_lack_are_empty(turn) -> None:
    above, below = line("What was bought in the last month of the year", 0, -100), line("Thank you very much", 0, 250)
    page = _page(above, *(cell for row in TABLE for cell in row), below, turn=turn)
    assert [block["text"] for block in page.blocks] == [
        above.text,
        *(cell.text for row in TABLE for cell in row),
        below.text,
    ]
    [table] = page.tables
    assert table["rows"] == [
        ["Item", "Count", "Price"],
        ["wire", "12", "3.50"],
        ["gears", "", "18.25"],
        ["oil", "3", "6.40"],
    ]
    assert page.text.splitlines()[3] == "gears\t\t18.25"


def test_two_tables_with_text_between_are_two() -> None:
    first = [cell for row in TABLE for cell in row]
    text = line("These are the prices of the second month", 0, 200, 560)
    second = [Line(cell.text, 0.9, cell.box + np.array([0.0, 300.0])) for cell in first]
    page = _page(*first, text, *second)
    assert [len(table["rows"]) for table in page.tables] == [4, 4]
    assert [block["text"] for block in page.blocks][len(first)] == text.text


def test_columns_of_prose_are_no_table() -> None:
    assert _page(*COLUMNS).tables == []


def test_labels_with_values_are_a_table_of_two_columns() -> None:
    lines = [line(text, 300 * (number % 2), 40 * (number // 2)) for number, text in enumerate("a1b2c3")]
    assert _page(*lines).tables[0]["rows"] == [["a", "1"], ["b", "2"], ["c", "3"]]


def test_a_page_without_text_is_empty() -> None:
    assert arrange(7, (10, 20), []) == Page(7, (10, 20), [], [], "")


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.timeout(20)  # takes a fifth of a second
def test_a_thousand_lines_are_put_in_order_at_once(columns) -> None:
    rows = 1000 // columns
    lines = [line(f"{side} {row}", 500 * side, 25 * row, 430) for side in range(columns) for row in range(rows)]
    assert order(*lines) == [line.text for line in lines]
