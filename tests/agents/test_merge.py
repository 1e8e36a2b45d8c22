from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mediamesh.agents.multimodal_aggregator.merge import Merge, Merged

SOURCES = ("audio", "image", "video")
# Eighths are exact, so that what lies at a bound does so after a subtraction, too.
TIMES = st.integers(0, 60).map(lambda eighths: eighths / 8)
IDLE = st.sets(st.sampled_from(SOURCES))
ANY_ORDER = st.lists(st.tuples(st.sampled_from(SOURCES), TIMES), max_size=80)


@st.composite
def each_in_order(draw) -> list[tuple[str, float]]:
    """Items of several inputs, each of which is in order, in any interleaving."""
    inputs = {source: sorted(draw(st.lists(TIMES, max_size=20))) for source in SOURCES}
    turns = draw(st.permutations([source for source, times in inputs.items() for _ in times]))
    return [(source, inputs[source].pop(0)) for source in turns]


def merged(items, *, max_delay=math.inf, max_items=1000, idle=()) -> list[Merged[int]]:
    """Return what comes out of items that come one after the other, number by number, and then end.

    Args:
        items: Source and time of each.
        max_delay: As of a merge.
        max_items: As of a merge.
        idle: Inputs that count as idle whenever they have given something.
    """
    merge: Merge[int] = Merge(SOURCES, max_delay=max_delay, max_items=max_items)
    out: list[Merged[int]] = []
    for number, (source, time) in enumerate(items):
        out += merge.add(source, time, number)
        for silent in idle:
            out += merge.idle(silent)
    for source in SOURCES:
        out += merge.end(source)
    return out


@given(ANY_ORDER, st.floats(0, 7), st.integers(1, 20), IDLE)
def test_everything_comes_out_once_and_what_is_not_late_in_order(items, max_delay, max_items, idle) -> None:
    out = merged(items, max_delay=max_delay, max_items=max_items, idle=idle)
    assert sorted(one.item for one in out) == list(range(len(items)))
    assert all(items[one.item] == (one.source, one.time) for one in out)
    in_time = [one.time for one in out if not one.late]
    assert in_time == sorted(in_time)


@given(ANY_ORDER, st.floats(0, 7), st.integers(1, 20), IDLE)
def test_late_is_exactly_what_comes_out_after_a_later_time(items, max_delay, max_items, idle) -> None:
    newest = -math.inf
    for one in merged(items, max_delay=max_delay, max_items=max_items, idle=idle):
        assert one.late == (one.time < newest)
        newest = max(newest, one.time)


@given(each_in_order())
def test_inputs_that_are_in_order_merge_into_one_in_order_and_nothing_is_late(items) -> None:
    out = merged(items)
    assert [one.time for one in out] == sorted(time for _, time in items)
    assert not any(one.late for one in out)


@given(ANY_ORDER, st.integers(0, 70).map(lambda eighths: eighths / 8), st.integers(1, 20))
def test_no_more_is_held_than_the_bounds_say_and_nothing_that_may_go(items, max_delay, max_items) -> None:
    merge: Merge[int] = Merge(SOURCES, max_delay=max_delay, max_items=max_items)
    held: dict[int, float] = {}
    seen = dict.fromkeys(SOURCES, -math.inf)

    def gone(out) -> None:
        for one in out:
            del held[one.item]

    for number, (source, time) in enumerate(items):
        held[number] = time
        seen[source] = max(seen[source], time)
        gone(merge.add(source, time, number))
        assert len(held) <= max_items
        assert not held or min(held.values()) > min(seen.values())
        for silent in SOURCES:
            gone(merge.idle(silent))
        assert not held or max(held.values()) - min(held.values()) <= max_delay
    assert merge.held_most <= max_items


@given(each_in_order(), st.floats(0, 7))
def test_an_input_that_is_slow_but_not_idle_is_waited_for(items, max_delay) -> None:
    assert not any(one.late for one in merged(items, max_delay=max_delay))


@given(each_in_order(), TIMES)
def test_a_watermark_without_an_item_lets_go_what_lies_before_it(items, mark) -> None:
    merge: Merge[int] = Merge(("first", "second"), max_delay=math.inf, max_items=1000)
    times = [time for _, time in items]
    assert [one for number, time in enumerate(times) for one in merge.add("first", time, number, watermark=99)] == []
    gone = [one.time for one in merge.advance("second", mark)]
    assert gone == sorted(time for time in times if time <= mark)
    assert merge.advance("second", 0.0) == []
    assert len(gone) + len(merge.end("second")) == len(times)


def test_items_of_one_time_come_out_as_they_came() -> None:
    out = merged([("video", 1.0), ("audio", 1.0), ("image", 1.0)])
    assert [one.source for one in out] == ["video", "audio", "image"]


def test_an_input_that_is_idle_holds_others_back_no_longer_than_the_bound() -> None:
    merge: Merge[int] = Merge(("audio", "video"), max_delay=2.0, max_items=1000)
    assert [merge.add("video", second / 2, second) for second in range(8)] == [[]] * 8
    assert [one.time for one in merge.idle("audio")] == [0.0, 0.5, 1.0]
    assert [one.time for one in merge.add("video", 4.0, 8)] == [1.5]
    [late, *_] = merge.add("audio", 0.75, 99)
    assert (late.time, late.late) == (0.75, True)
    assert merge.add("video", 4.5, 9) == []  # it lives again, and is waited for
    assert merge.held_most == 8
