"""What a subscriber was given counts as read only when it cannot be lost on the way any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.stream.v1.stream_pb2 import StreamLimits
from mediamesh.streams.transit import Transit

KIB, MIB = 1024, 1024 * 1024


def given_events(transit: Transit, first: int, last: int, size: int) -> None:
    for sequence in range(first, last + 1):
        transit.give(sequence, size)


def test_the_last_megabyte_may_be_on_its_way() -> None:
    transit = Transit(0, StreamLimits(max_items=10_000, max_bytes=8 * MIB))
    given_events(transit, 1, 1000, 1 * KIB)
    assert transit.look() == 0
    given_events(transit, 1001, 3000, 1 * KIB)
    assert transit.look() == 3000 - 1024


def test_a_small_buffer_holds_half_of_itself_back() -> None:
    transit = Transit(0, StreamLimits(max_items=10_000, max_bytes=64 * KIB))
    given_events(transit, 1, 100, 1 * KIB)
    assert transit.look() == 100 - 32
    few = Transit(0, StreamLimits(max_items=16, max_bytes=8 * MIB))
    given_events(few, 1, 16, 1)
    assert few.look() == 8


def test_events_as_large_as_the_buffer_do_not_hold_each_other_up() -> None:
    transit = Transit(0, StreamLimits(max_items=10_000, max_bytes=64 * KIB))
    transit.give(1, 60 * KIB)
    assert transit.look() == 1


def test_who_rests_has_everything() -> None:
    transit = Transit(5, StreamLimits(max_items=10_000, max_bytes=8 * MIB))
    given_events(transit, 6, 20, 1 * KIB)
    assert transit.look() == 5
    transit.rest(20)
    assert transit.look() == 20


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 200 * KIB)), max_size=60),
    st.integers(2, 1000),
    st.integers(64 * KIB, 4 * MIB),
)
def test_it_only_rises_and_never_passes_what_was_given(batches, max_items, max_bytes) -> None:
    transit = Transit(0, StreamLimits(max_items=max_items, max_bytes=max_bytes))
    position, before = 0, 0
    for count, size in batches:
        position += count
        transit.give(position, size)
        arrived = transit.look()
        assert before <= arrived <= position
        assert position - arrived <= max(1, max_items // 2)
        before = arrived
