"""The queue on a clock of the test's own: which requests run together, when, and what happens to those that do not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.inference.batching.policies import BatchPolicy, LevelPolicy, batch_policy
from mediamesh.inference.batching.queue import Queue
from mediamesh.inference.batching.tickets import Ticket
from mediamesh.inference.configuration.config import LoadError
from mediamesh.wire.errors import Overloaded, Unavailable

MS = 1_000_000
# A queue looks at no answer.
NOBODY: Any = None


class Bench:
    """A queue, its clock, and what was put into it."""

    def __init__(self, policy: BatchPolicy, *, max_requests: int = 1000, max_bytes: int = 1 << 30) -> None:
        self.now = 1
        self.queue = Queue("m/1", policy, max_requests=max_requests, max_bytes=max_bytes, clock=lambda: self.now)

    def put(self, items: int = 1, width: int = 1, **given) -> Ticket:
        ticket = Ticket({"x": np.zeros((items, width), np.uint8)}, ("y",), items, NOBODY, arrived=self.now, **given)
        self.queue.put(ticket, retry_after=1)
        return ticket

    def take(self, workers: int = 1) -> list[Ticket]:
        return self.queue.take_ready(workers)[0]


def policy(most: int = 8, **given) -> BatchPolicy:
    return BatchPolicy(most_items=most, aim=max(given.get("preferred", ()), default=most), **given)


LEVELS = (LevelPolicy(timeout=20 * MS), LevelPolicy(timeout=30 * MS, delays=True), LevelPolicy())
POLICIES = st.builds(
    policy,
    most=st.integers(6, 8),
    preferred=st.frozensets(st.integers(2, 6), max_size=2),
    delay=st.sampled_from([0, 5 * MS]),
    levels=st.just(LEVELS),
) | st.just(BatchPolicy(levels=LEVELS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0, 7, 25])),
        st.tuples(st.just("wait"), st.integers(1, 15)),
        st.tuples(st.just("take"), st.integers(1, 3)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("sweep")),
    ),
    max_size=60,
)


def is_late(bench: Bench, ticket: Ticket) -> bool:
    level = LEVELS[ticket.level]
    rejects = level.timeout and not level.delays and ticket.arrived + level.timeout <= bench.now
    return bool(rejects or (ticket.deadline and ticket.deadline <= bench.now))


@settings(max_examples=150, deadline=None)
@given(POLICIES, STEPS)
def test_every_request_leaves_the_queue_once_and_batches_keep_the_rules(own, steps) -> None:
    bench, waiting, left = Bench(own), [], Counter[Ticket]()
    for what, *said in steps:
        match what:
            case "put":
                level, items, width, deadline = said
                waiting.append(bench.put(items, width, level=level, deadline=deadline and bench.now + deadline * MS))
            case "wait":
                bench.now += said[0] * MS
            case "take":
                batch, ready = bench.queue.take_ready(said[0])
                left.update(batch)
                check_batch(bench, own, batch)
                in_time = [ticket for ticket in waiting if not left[ticket] and not is_late(bench, ticket)]
                if not batch and in_time:
                    assert own.delay
                    assert ready is not None
                    assert bench.now < ready <= max(ticket.arrived for ticket in in_time) + own.delay
            case "leave" if waiting:
                ticket = waiting[said[0] % len(waiting)]
                if bench.queue.withdraw(ticket):
                    left[ticket] += 1
            case "sweep":
                expired = bench.queue.expired()
                assert all(is_late(bench, ticket) for ticket in expired)
                left.update(expired)
    left.update(bench.queue.close())
    assert all(left[ticket] == 1 for ticket in waiting)
    assert not len(bench.queue)


def check_batch(bench: Bench, own: BatchPolicy, batch: list[Ticket]) -> None:
    assert len({ticket.kind for ticket in batch}) <= 1
    assert len(batch) <= 1 or sum(ticket.items for ticket in batch) <= own.most_items
    assert not any(is_late(bench, ticket) for ticket in batch)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=10), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_no_request_starves_however_many_more_urgent_ones_come(levels, widths) -> None:
    bench = Bench(policy(4, levels=(LevelPolicy(),) * 3), max_requests=100_000)
    early = [bench.put(level=level, width=9 + number) for number, level in enumerate(levels)]
    for turn in range(16 * (len(early) + 1)):
        bench.now += MS
        for width in widths:
            bench.put(level=0, width=width)
        assert bench.take(), turn
    assert all(ticket.lane is None for ticket in early)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3)), min_size=1, max_size=40))
def test_a_queue_counts_what_it_holds(puts) -> None:
    bench = Bench(policy(levels=(LevelPolicy(most=9), LevelPolicy())), max_requests=20, max_bytes=40)
    held: list[Ticket] = []
    for level, width in puts:
        full = (
            (sum(ticket.level == 0 for ticket in held) == 9 and level == 0)
            or len(held) == 20
            or (held and sum(ticket.size for ticket in held) + width > 40)
        )
        if full:
            with pytest.raises(Overloaded, match="m/1"):
                bench.put(width=width, level=level)
        else:
            held.append(bench.put(width=width, level=level))
        assert len(bench.queue) == len(held)


def test_without_a_delay_what_is_there_runs_at_once() -> None:
    bench = Bench(policy(8))
    tickets = [bench.put(), bench.put()]
    assert bench.take() == tickets


def test_idle_workers_share_what_is_there() -> None:
    bench = Bench(policy(8))
    tickets = [bench.put() for _ in range(5)]
    assert bench.take(workers=2) == tickets[:3]


def test_what_pays_bounds_a_batch_but_not_what_was_asked_for() -> None:
    bench = Bench(policy(8).limited_to(2))
    tickets = [bench.put() for _ in range(3)]
    assert bench.take() == tickets[:2]
    assert policy(8, preferred=frozenset({8})).limited_to(2).aim == 8
    big = bench.put(items=5)
    assert [bench.take(), bench.take()] == [tickets[2:], [big]]


def test_a_preferred_size_runs_at_once_and_leaves_the_rest() -> None:
    bench = Bench(policy(8, preferred=frozenset({2, 4}), delay=5 * MS))
    tickets = [bench.put() for _ in range(5)]
    assert bench.take() == tickets[:4]
    assert bench.queue.take_ready() == ([], 1 + 5 * MS)
    bench.now += 5 * MS
    assert bench.take() == tickets[4:]


def test_after_the_delay_all_that_fits_runs() -> None:
    bench = Bench(policy(8, preferred=frozenset({4}), delay=5 * MS))
    tickets = [bench.put(items=3), bench.put(items=3)]
    bench.now += 5 * MS
    assert bench.take() == tickets


def test_a_batch_that_no_further_request_fits_into_does_not_wait() -> None:
    bench = Bench(policy(8, delay=5 * MS))
    first = bench.put(items=5)
    assert bench.queue.take_ready() == ([], 1 + 5 * MS)
    bench.put(items=4)
    assert bench.take() == [first]


def test_a_full_batch_of_one_shape_does_not_wait_behind_another_shape() -> None:
    bench = Bench(policy(2, delay=5 * MS))
    bench.put(width=7)
    full = [bench.put(width=3), bench.put(width=3)]
    assert bench.take() == full


def test_urgent_requests_come_first_and_may_bring_others_along() -> None:
    bench = Bench(policy(2, levels=(LevelPolicy(), LevelPolicy())))
    late, other, urgent = bench.put(level=1), bench.put(level=1, width=2), bench.put(level=0)
    assert bench.take() == [urgent, late]
    assert bench.take() == [other]


def test_a_timeout_rejects_or_delays_as_the_policy_of_its_priority_says() -> None:
    levels = (LevelPolicy(timeout=10 * MS), LevelPolicy(timeout=10 * MS, delays=True), LevelPolicy())
    bench = Bench(policy(0, levels=levels))
    rejected, delayed = bench.put(level=0), bench.put(level=1)
    bench.now += 10 * MS
    fresh, low = bench.put(level=1), bench.put(level=2)
    assert [bench.take() for _ in range(4)] == [[fresh], [delayed], [low], []]
    assert bench.queue.expired() == [rejected]


def test_a_request_may_shorten_a_timeout_where_the_policy_lets_it() -> None:
    assert LevelPolicy(timeout=10, overridable=True).timeout_of(5) == 5
    assert LevelPolicy(timeout=10, overridable=True).timeout_of(50) == 10
    assert LevelPolicy(timeout=10).timeout_of(5) == 10
    assert LevelPolicy().timeout_of(5) == 5


def test_a_deadline_removes_even_what_a_policy_would_delay() -> None:
    bench = Bench(policy(levels=(LevelPolicy(timeout=5 * MS, delays=True),)))
    gone = bench.put(deadline=1 + 8 * MS)
    bench.now += 6 * MS
    assert bench.queue.next_expiry() is not None
    bench.now += 3 * MS
    assert bench.take() == []
    assert bench.queue.expired() == [gone]
    assert not bench.queue.withdraw(gone)


def test_deadlines_of_what_has_left_take_no_memory() -> None:
    bench = Bench(policy(1))
    for _ in range(5000):
        bench.put(deadline=10**15)
        bench.take()
    assert len(bench.queue._times) < 200


def test_a_closed_queue_gives_back_what_waits_and_takes_nothing() -> None:
    bench = Bench(policy())
    ticket = bench.put()
    assert bench.queue.close() == [ticket]
    assert bench.queue.take() == []
    with pytest.raises(Unavailable):
        bench.put()


def parsed(tmp_path, text: str) -> BatchPolicy:
    config = config_pb.ModelConfig(max_batch_size=8)
    text_format.Parse(f"dynamic_batching {{ {text} }}", config)
    return batch_policy(tmp_path / "config.pbtxt", config)


def test_a_configuration_becomes_a_policy(tmp_path) -> None:
    own = parsed(
        tmp_path,
        "preferred_batch_size: [2, 4] max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 2 "
        "default_queue_policy { max_queue_size: 7 } priority_queue_policy { key: 1 value { "
        "timeout_action: DELAY default_timeout_microseconds: 9 allow_timeout_override: true } }",
    )
    levels = (LevelPolicy(timeout=9000, overridable=True, delays=True), LevelPolicy(most=7))
    assert own == BatchPolicy(8, 4, frozenset({2, 4}), 100_000, levels=levels, default_level=2)
    assert [own.level_of(priority) for priority in (0, 1, 2, 3)] == [1, 0, 1, 1]
    assert parsed(tmp_path, "preserve_ordering: true").in_order
    assert batch_policy(tmp_path, config_pb.ModelConfig(max_batch_size=8)).most_items == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("preferred_batch_size: 9", "preferred_batch_size: 9, expected 1 to max_batch_size, which is 8"),
        ("preferred_batch_size: 0", "preferred_batch_size: 0"),
        ("priority_levels: 2", "default_priority_level: 0, expected 1 to priority_levels"),
        ("priority_levels: 65 default_priority_level: 1", "has at most 64"),
        ("default_priority_level: 1", "there are no priority_levels"),
        ("priority_queue_policy { key: 1 value {} }", "is for priority 1"),
        ("preserve_ordering: true priority_levels: 2 default_priority_level: 1", "not possible with priorities"),
        ("preserve_ordering: true default_queue_policy { timeout_action: DELAY }", "timeout_action is DELAY"),
        ("max_queue_delay_microseconds: 18446744073709551615", "max_queue_delay_microseconds"),
        ("default_queue_policy { default_timeout_microseconds: 18446744073709551615 }", "timeout_microseconds: at"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused_with_its_field(tmp_path, text, sentence) -> None:
    with pytest.raises(LoadError, match=sentence) as raised:
        parsed(tmp_path, text)
    assert str(tmp_path / "config.pbtxt") in str(raised.value)


def test_a_ticket_knows_whose_batches_it_shares() -> None:
    def kind(**inputs):
        return Ticket(inputs, ("y",), 1, NOBODY).kind

    a, b = np.zeros((1, 2)), np.zeros((5, 2))
    assert kind(x=a) == kind(x=b) != kind(x=a, z=b)
    assert kind(x=a) != kind(x=np.zeros((1, 3)))


def test_a_batch_stops_before_it_passes_what_it_aims_for() -> None:
    bench = Bench(policy(8, preferred=frozenset({4})))
    first, second = bench.put(items=3), bench.put(items=3)
    assert [bench.take(), bench.take()] == [[first], [second]]


def test_no_batch_is_larger_than_the_largest() -> None:
    bench = Bench(policy(8))
    tickets = [bench.put(items=3) for _ in range(3)]
    assert bench.take() == tickets[:2]


def test_no_batch_that_has_waited_long_enough_is_larger_than_the_largest() -> None:
    bench = Bench(policy(8, preferred=frozenset({4}), delay=5 * MS))
    tickets = [bench.put(items=3) for _ in range(3)]
    bench.now += 6 * MS
    assert bench.take() == tickets[:2]


def test_what_leaves_makes_room() -> None:
    bench = Bench(policy(2, levels=(LevelPolicy(most=2),)), max_bytes=8)
    for _ in range(5):
        bench.put(width=4)
        gone = bench.put(width=4)
        with pytest.raises(Overloaded, match="2 requests wait"):
            bench.put()
        bench.queue.withdraw(gone)
        with pytest.raises(Overloaded, match="4 bytes wait"):
            bench.put(width=5)
        assert bench.take()
