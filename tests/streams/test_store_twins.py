"""The two stores compared, operation by operation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from mediamesh.api.stream.v1.stream_pb2 import StreamEnd
from mediamesh.streams.log.memory import MemoryStore
from mediamesh.streams.log.ports import Append, Entry, Place
from mediamesh.streams.log.valkey import ValkeyStore
from tests.streams.test_store import stream_of

pytestmark = pytest.mark.stack

_RULES: dict[str, Any] = {
    "replica": "a",
    "max_concurrent_streams": 4,
    "resume_seconds": 3600,
    "buffer_ttl_seconds": 3600,
    "meta_ttl_seconds": 3600,
}
_SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=9)
_READERS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 30), max_size=2)


class Twins(RuleBasedStateMachine):
    """Does the same to both, and finds the same."""

    url = ""

    def __init__(self):
        super().__init__()
        with Redis.from_url(self.url) as client:
            client.flushdb()
        self.runner = asyncio.Runner()
        self.memory_open = MemoryStore.open(**_RULES)
        self.valkey_open = ValkeyStore.open(self.url, **_RULES)
        self.memory = self.run(self.memory_open.__aenter__())
        self.valkey = self.run(self.valkey_open.__aenter__())
        self.ids: list[str] = []
        self.newest: dict[str, int] = {}

    def run(self, asking):
        return self.runner.run(asking)

    def both(self, ask):
        """Ask both, and return what both answer."""

        async def outcomes():
            return [await _outcome(ask(store)) for store in (self.memory, self.valkey)]

        in_memory, in_valkey = self.run(outcomes())
        assert in_memory == in_valkey
        return in_memory

    def teardown(self):
        self.run(self.valkey_open.__aexit__(None, None, None))
        self.runner.close()

    @rule(policy=st.integers(1, 4), items=st.integers(1, 12), size=st.integers(1, 400))
    def create(self, policy, items, size):
        stream = stream_of(policy, items=items, size=size)
        if self.both(lambda store: store.create(stream, "digest")) is None:
            self.ids.append(stream.stream_id)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), producer=st.sampled_from("pq"), epoch=st.integers(0, 4))
    def take(self, data, producer, epoch):
        stream_id = data.draw(st.sampled_from(self.ids))
        self.both(lambda store: store.take(stream_id, producer, epoch))

    @precondition(lambda self: self.ids)
    @rule(
        data=st.data(),
        epoch=st.integers(0, 4),
        back=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 5, -1]),
        sizes=_SIZES,
        ends=st.sampled_from([False] * 7 + [True]),
        readers=_READERS,
    )
    def append(self, data, epoch, back, sizes, ends, readers):
        stream_id = data.draw(st.sampled_from(self.ids))
        first = max(1, self.newest.get(stream_id, 0) + 1 - back)
        entries = [Entry(first + at, bytes([65 + epoch]) * size) for at, size in enumerate(sizes)]
        end = StreamEnd(reason="stop") if ends or epoch == 0 else None
        append = Append(stream_id=stream_id, epoch=epoch, entries=entries, end=end, readers=readers)
        self.newest[stream_id] = getattr(self.both(lambda store: store.append(append)), "newest", 0)

    @precondition(lambda self: self.ids)
    @rule(
        data=st.data(),
        reader=st.sampled_from("abcd"),
        position=st.integers(0, 40),
        seconds=st.sampled_from([0, 3600, 3600]),
    )
    def place(self, data, reader, position, seconds):
        stream_id = data.draw(st.sampled_from(self.ids))
        place = Place(stream_id=stream_id, subscriber_id=reader, position=position, seconds=seconds)
        self.both(lambda store: store.place([place]))

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), after=st.integers(0, 50), items=st.integers(1, 9), size=st.integers(0, 400))
    def read(self, data, after, items, size):
        stream_id = data.draw(st.sampled_from(self.ids))
        self.both(lambda store: store.read(stream_id, after, items=items, size=size))

    @rule(live_only=st.booleans(), limit=st.integers(1, 5))
    def page(self, live_only, limit):
        self.both(lambda store: _without_times(store.page("w", live_only=live_only, limit=limit)))

    @invariant()
    def same_streams(self):
        self.both(lambda store: store.live())
        self.both(lambda store: _without_times(store.load(self.ids)))

    @invariant()
    def same_news(self):
        self.both(lambda store: _kinds(store.news("", 10_000)))


async def _outcome(asking):
    try:
        return await asking
    except Exception as error:  # noqa: BLE001 - any error is an answer too
        return type(error), str(error)


async def _without_times(asking):
    found = await asking
    for stored in found:
        stored.stream.ClearField("end_time")
    return found


async def _kinds(asking):
    return [(news.kind, news.stream.stream_id, news.stream.last_sequence, news.stream.epoch) for news in await asking]


def test_both_stores_answer_the_same_whatever_is_asked(empty_valkey_url):
    Twins.url = empty_valkey_url
    run_state_machine_as_test(Twins, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
