from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.orchestrator.condition_source import parse, rewritten
from mediamesh.orchestrator.conditions import BadCondition, carries, joined

NODES = {"a", "b-1", "outer.c"}
VALUES = {
    ("a", "score"): 0.5,
    ("a", "good"): True,
    ("b-1", "list"): [{"label": "cat", "odd name": 1}, {"label": "dog"}],
    ("outer.c", "text"): "hello",
    None: {"width": 640, "mimeType": "image/png"},
}


@pytest.mark.parametrize(
    ("text", "so"),
    [
        ("a.score > 0.4", True),
        ("a.score >= 5e-1 and a.score <= 0.5", True),
        ("a.score == -0.5", False),
        ("a.good", True),
        ("not a.good", False),
        ("not not a.good", True),
        ("not a.score > 1", True),
        ("a.good and a.score > 1 or b-1.list[0].label == 'cat'", True),
        ("a.good and (a.score > 1 or b-1.list[1].label == 'cat')", False),
        ("b-1.list[-1].label == \"dog\"", True),
        ("b-1.list[0]['odd name'] == 1", True),
        ("b-1.list[7].label == null", True),
        ("b-1.list[0].label.more", False),
        ("len(b-1.list) == 2", True),
        ("len(a.score) == 0", True),
        ("value.width > 600 and value.mimeType in ['image/png', 'image/webp']", True),
        ("'ell' in outer.c.text", True),
        ("outer.c.text == 'it\\'s'", False),
        ("a.score > '0'", False),
        ("a.good == 1", False),
        ("nobody.there", False),
        ("true", True),
        ("null", False),
    ],
)  # fmt: skip
def test_a_condition_comes_to_what_it_says(text, so) -> None:
    assert carries(parse(text, NODES), VALUES) is so


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "goes wrong at its end"),
        ("a.score >", 9, "goes wrong at its end"),
        ("(a.good", 7, "goes wrong at its end; `)` should come here"),
        ("a.score = 3", 8, "goes wrong at `= 3`"),
        ("a.good b-1.list", 7, "goes wrong at `b-1.list`"),
        ("cat == b-1.list", 0, "has `cat`, which is no value: text is quoted, a pin is `node.pin`"),
        ("and a.good", 0, "goes wrong at `and`"),
        ("b-1.list[1.5]", 9, "goes wrong at `1.5`"),
        ("[1 2]", 3, "goes wrong at `2`; `,` should come here"),
        ("(" * 20 + "true" + ")" * 20, 16, "nests deeper than 16 levels"),
    ],
)
def test_what_cannot_be_read_is_said_where(text, offset, message) -> None:
    with pytest.raises(BadCondition) as raised:
        parse(text, NODES)
    assert (raised.value.offset, str(raised.value)) == (offset, message)


def test_what_is_neither_true_nor_false_is_no_condition() -> None:
    with pytest.raises(BadCondition, match=r"comes to '0\.5', which is neither true nor false"):
        carries(parse("a.score", NODES), VALUES)


def test_pins_are_renamed_where_they_are_meant() -> None:
    text = "a.score > 1 and b-1.list[0].a.score == 'a.score' or outer.c.text.a.score"
    changed = rewritten(text, NODES, lambda pin: (f"x.{pin[0]}", pin[1]))
    assert changed == "x.a.score > 1 and x.b-1.list[0].a.score == 'a.score' or x.outer.c.text.a.score"


def test_two_conditions_are_both_needed() -> None:
    assert joined("a.good or a.score", "true") == "(a.good or a.score) and (true)"
    assert joined("", "true") == joined("true", "") == "true"


@given(st.text(st.sampled_from("aA1.-_ ()[],'\"<>=!notrue\\"), max_size=60))
def test_any_text_is_a_condition_or_is_said_to_be_none(text) -> None:
    with contextlib.suppress(BadCondition):
        carries(parse(text, NODES), VALUES)
