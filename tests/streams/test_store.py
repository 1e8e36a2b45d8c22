"""What the broker may rely on, of both stores."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from google.rpc import status_pb2

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy, Stream, StreamEnd, StreamLimits, StreamState
from mediamesh.streams.identity import new_id
from mediamesh.streams.log.ports import Append, Appended, Entry, Outcome, Place
from mediamesh.wire.errors import OutOfRange, Overloaded

BLOCK = OverflowPolicy.OVERFLOW_POLICY_BLOCK
DROP_OLDEST = OverflowPolicy.OVERFLOW_POLICY_DROP_OLDEST
DROP_NEWEST = OverflowPolicy.OVERFLOW_POLICY_DROP_NEWEST
DISCONNECT = OverflowPolicy.OVERFLOW_POLICY_DISCONNECT
NEVER = 1 << 40


def stream_of(policy=DROP_OLDEST, *, items=100, size=1 << 20, seconds=300.0, workspace="w", execution=""):
    stream = Stream(
        stream_id=new_id(),
        workspace_id=workspace,
        execution_id=execution,
        node_id="n",
        limits=StreamLimits(overflow=policy, max_items=items, max_bytes=size),
    )
    stream.limits.max_duration.FromMilliseconds(round(seconds * 1000))
    stream.create_time.GetCurrentTime()
    return stream


def entries_of(first, last, size=4):
    return [Entry(sequence, str(sequence).encode().rjust(size, b".")) for sequence in range(first, last + 1)]


async def created(store, *args, **kwargs):
    stream = stream_of(*args, **kwargs)
    await store.create(stream, "digest")
    return stream.stream_id


async def put(store, stream_id, first, last, *, epoch=1, end=None, readers=None, size=4):
    return await store.append(
        Append(stream_id=stream_id, epoch=epoch, entries=entries_of(first, last, size), end=end, readers=readers)
    )


async def produced(store, *args, **kwargs):
    """Open a stream and take its first epoch."""
    stream_id = await created(store, *args, **kwargs)
    await store.take(stream_id, "p", 0)
    return stream_id


async def sequences(store, stream_id, after=0):
    page = await store.read(stream_id, after, items=1000, size=NEVER)
    return [entry.sequence for entry in page.entries]


async def standing(store, stream_id):
    (stored,) = await store.load([stream_id])
    return stored


async def until(right, ask):
    """Ask until the answer is right, and return it."""
    async with asyncio.timeout(20):
        while True:
            if right(answer := await ask()):
                return answer
            await asyncio.sleep(0.02)


class TestOpening:
    async def test_a_stream_is_there_when_it_was_created(self, store):
        stream = stream_of()
        await store.create(stream, "digest")
        stored = await standing(store, stream.stream_id)
        assert stored.token_digest == "digest"
        assert stored.producer_id == ""
        assert stored.readable
        assert stored.stream.state == StreamState.STREAM_STATE_LIVE
        assert (stored.stream.first_sequence, stored.stream.last_sequence, stored.stream.epoch) == (0, 0, 0)
        stored.stream.ClearField("state")
        assert stored.stream == stream

    async def test_streams_come_in_the_order_of_their_ids_less_those_that_are_not(self, store):
        first, second = await created(store), await created(store)
        found = await store.load([second, "nothing", first])
        assert [stored.stream.stream_id for stored in found] == [second, first]

    async def test_one_more_than_may_live_is_refused_until_one_ends(self, open_store):
        store = await open_store(max_concurrent_streams=2)
        first, _ = await produced(store), await created(store)
        with pytest.raises(Overloaded, match="2 streams") as refused:
            await created(store)
        assert refused.value.retry_after
        assert await store.live() == 2
        await put(store, first, 1, 1, end=StreamEnd(reason="stop"))
        assert await store.live() == 1
        await created(store)

    async def test_many_opened_at_once_keep_the_limit_over_replicas(self, replicas, open_store):
        first, second = [await open_store(replica=name, max_concurrent_streams=10) for name in "cd"]
        opening = [created(first if number % 2 else second) for number in range(20)]
        done = await asyncio.gather(*opening, return_exceptions=True)
        assert sum(isinstance(outcome, Overloaded) for outcome in done) == 10
        assert await first.live() == 10


class TestTaking:
    async def test_epoch_zero_takes_the_next_one(self, store):
        stream_id = await created(store)
        assert (await store.take(stream_id, "p", 0)).epoch == 1
        taken = await store.take(stream_id, "q", 0)
        assert (taken.outcome, taken.epoch) == (Outcome.STORED, 2)
        assert (await standing(store, stream_id)).producer_id == "q"

    async def test_the_same_producer_goes_on_with_its_epoch_and_another_may_not(self, store):
        stream_id = await created(store)
        await store.take(stream_id, "p", 7)
        assert (await store.take(stream_id, "p", 7)).outcome is Outcome.STORED
        refused = await store.take(stream_id, "q", 7)
        assert (refused.outcome, refused.epoch) == (Outcome.FENCED, 7)

    async def test_a_lower_epoch_is_shut_out(self, store):
        stream_id = await created(store)
        await store.take(stream_id, "p", 7)
        assert (await store.take(stream_id, "p", 6)).outcome is Outcome.FENCED
        refused = await put(store, stream_id, 1, 1, epoch=6)
        assert (refused.outcome, refused.epoch, refused.newest) == (Outcome.FENCED, 7, 0)

    async def test_it_tells_where_to_go_on(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 5)
        assert (await store.take(stream_id, "q", 0)).newest == 5

    async def test_an_epoch_that_the_store_has_lost_is_taken_up_again(self, store):
        stream_id = await produced(store)
        assert (await put(store, stream_id, 1, 1, epoch=3)).epoch == 3
        assert (await store.take(stream_id, "q", 3)).outcome is Outcome.STORED
        assert (await store.take(stream_id, "p", 3)).outcome is Outcome.FENCED

    async def test_what_is_not_there_is_gone(self, store):
        assert await store.take("nothing", "p", 0) == Appended(outcome=Outcome.GONE)
        assert await put(store, "nothing", 1, 1) == Appended(outcome=Outcome.GONE)
        assert await store.read("nothing", 0, items=1, size=1) is None
        assert await store.load(["nothing"]) == []
        await store.place([Place(stream_id="nothing", subscriber_id="r", position=0, seconds=1)])


class TestAppending:
    async def test_events_are_read_as_they_were_appended(self, store):
        stream_id = await produced(store)
        appended = await put(store, stream_id, 1, 3)
        assert (appended.outcome, appended.newest, appended.oldest, appended.accepted) == (Outcome.STORED, 3, 1, 3)
        page = await store.read(stream_id, 1, items=10, size=NEVER)
        assert list(page.entries) == entries_of(2, 3)
        assert (page.oldest, page.newest, page.ended) == (1, 3, False)

    async def test_bytes_of_all_values_are_kept(self, store):
        stream_id = await produced(store)
        data = bytes(range(256)) * 3
        await store.append(Append(stream_id=stream_id, epoch=1, entries=[Entry(1, data), Entry(2, b"")]))
        page = await store.read(stream_id, 0, items=10, size=NEVER)
        assert [entry.data for entry in page.entries] == [data, b""]

    async def test_what_is_said_again_is_accepted_and_not_stored_twice(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3)
        again = await put(store, stream_id, 1, 3)
        assert (again.outcome, again.accepted, again.newest) == (Outcome.STORED, 3, 3)
        assert await sequences(store, stream_id) == [1, 2, 3]

    async def test_what_is_partly_said_again_is_stored_in_part(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3)
        more = await put(store, stream_id, 2, 5)
        assert (more.outcome, more.accepted, more.newest) == (Outcome.STORED, 4, 5)
        assert await sequences(store, stream_id) == [1, 2, 3, 4, 5]

    async def test_a_sequence_from_the_future_is_told_where_to_go_on(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3)
        ahead = await put(store, stream_id, 5, 6)
        assert (ahead.outcome, ahead.newest, ahead.accepted) == (Outcome.AHEAD, 3, 0)

    async def test_nothing_to_append_tells_how_things_are(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3)
        asked = await store.append(Append(stream_id=stream_id, epoch=1, entries=[]))
        assert (asked.outcome, asked.newest, asked.accepted) == (Outcome.STORED, 3, 0)

    async def test_many_streams_at_once_do_not_mix(self, store):
        ids = [await produced(store) for _ in range(40)]
        await asyncio.gather(*(put(store, stream_id, 1, 1 + number) for number, stream_id in enumerate(ids)))
        for number, stream_id in enumerate(ids):
            assert await sequences(store, stream_id) == list(range(1, 2 + number))

    async def test_of_two_replicas_that_append_the_same_one_stores(self, replicas):
        stream_id = await produced(replicas[0])
        await asyncio.gather(*(put(store, stream_id, 1, 50) for store in replicas * 3))
        assert await sequences(replicas[1], stream_id) == list(range(1, 51))


class TestOverflow:
    @pytest.mark.parametrize("policy", [DROP_OLDEST, DISCONNECT])
    async def test_the_oldest_go_when_items_are_too_many(self, store, policy):
        stream_id = await produced(store, policy, items=3)
        appended = await put(store, stream_id, 1, 5)
        assert (appended.outcome, appended.oldest, appended.newest) == (Outcome.STORED, 3, 5)
        assert await sequences(store, stream_id) == [3, 4, 5]

    async def test_bytes_are_counted_exactly_over_many_that_go(self, store):
        stream_id = await produced(store, DROP_OLDEST, items=1000, size=1000)
        sizes = itertools.cycle([1, 700, 3, 299, 40, 41, 950, 7, 500, 500])
        kept: list[tuple[int, int]] = []
        for sequence, size in zip(range(1, 200), sizes, strict=False):
            while kept and sum(other for _, other in kept) + size > 1000:
                kept.pop(0)
            kept.append((sequence, size))
            await put(store, stream_id, sequence, sequence, size=size)
            if sequence % 20 == 0:
                assert await sequences(store, stream_id) == [known for known, _ in kept]

    @pytest.mark.parametrize("policy", [BLOCK, DROP_OLDEST, DROP_NEWEST])
    async def test_an_event_larger_than_the_buffer_has_it_for_itself(self, store, policy):
        stream_id = await produced(store, policy, size=100)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=9, seconds=60)])
        await put(store, stream_id, 1, 2)
        assert (await put(store, stream_id, 3, 3, size=500)).outcome is Outcome.STORED
        assert (await put(store, stream_id, 4, 5)).outcome is Outcome.STORED
        assert await sequences(store, stream_id) == [4, 5]

    async def test_a_batch_larger_than_the_buffer_leaves_its_end(self, store):
        stream_id = await produced(store, DROP_OLDEST, items=3)
        appended = await put(store, stream_id, 1, 100)
        assert (appended.accepted, appended.oldest, appended.newest) == (100, 98, 100)
        assert await sequences(store, stream_id) == [98, 99, 100]

    async def test_block_takes_what_fits_and_the_rest_when_readers_come_along(self, store):
        stream_id = await produced(store, BLOCK, items=4)
        full = await put(store, stream_id, 1, 10)
        assert (full.outcome, full.accepted, full.newest, full.room_items) == (Outcome.FULL, 4, 4, 0)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=2, seconds=60)])
        full = await put(store, stream_id, 5, 10)
        assert (full.outcome, full.accepted, full.oldest, full.newest) == (Outcome.FULL, 2, 3, 6)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=6, seconds=60)])
        assert (await put(store, stream_id, 7, 10)).outcome is Outcome.STORED
        assert await sequences(store, stream_id) == [7, 8, 9, 10]

    async def test_block_waits_for_the_first_reader_until_it_is_too_late(self, open_store):
        store = await open_store(resume_seconds=0.3)

        async def filled():
            stream_id = await produced(store, BLOCK, items=2)
            return stream_id, (await put(store, stream_id, 1, 3)).outcome

        # Where the machine stalls it is too late already.
        stream_id, _ = await until(lambda filled: filled[1] is Outcome.FULL, filled)
        await until(lambda appended: appended.outcome is Outcome.STORED, lambda: put(store, stream_id, 3, 3))
        assert await sequences(store, stream_id) == [2, 3]

    async def test_block_forgets_a_reader_that_gave_its_place_up(self, store):
        stream_id = await produced(store, BLOCK, items=2)
        places = [
            Place(stream_id=stream_id, subscriber_id=name, position=at, seconds=60) for name, at in [("r", 0), ("s", 2)]
        ]
        await store.place(places)
        assert (await put(store, stream_id, 1, 3)).outcome is Outcome.FULL
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=0, seconds=0)])
        assert (await put(store, stream_id, 3, 4)).outcome is Outcome.STORED
        assert (await put(store, stream_id, 5, 5)).outcome is Outcome.FULL

    async def test_a_reader_that_begins_again_holds_back_what_others_have_read(self, store):
        stream_id = await produced(store, BLOCK, items=4)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=4, seconds=60)])
        assert (await put(store, stream_id, 1, 5)).oldest == 2
        await store.place([Place(stream_id=stream_id, subscriber_id="s", position=2, seconds=60)])
        assert (await put(store, stream_id, 6, 8)).newest == 6
        assert await sequences(store, stream_id) == [3, 4, 5, 6]

    async def test_readers_that_an_append_brings_count(self, store):
        stream_id = await produced(store, BLOCK, items=2)
        await put(store, stream_id, 1, 2)
        full = await put(store, stream_id, 3, 3, readers={"r": 2, "s": 0})
        assert full.outcome is Outcome.FULL
        assert (await put(store, stream_id, 3, 3, readers={"r": 2, "s": 1})).outcome is Outcome.STORED
        assert (await put(store, stream_id, 4, 4)).outcome is Outcome.FULL

    async def test_drop_newest_leaves_holes_and_counts_them(self, store):
        stream_id = await produced(store, DROP_NEWEST, items=3)
        dropped = await put(store, stream_id, 1, 6)
        assert (dropped.outcome, dropped.accepted, dropped.newest, dropped.dropped) == (Outcome.STORED, 6, 6, (4, 6))
        assert await sequences(store, stream_id) == [1, 2, 3]
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=6, seconds=60)])
        assert (await put(store, stream_id, 7, 7)).dropped is None
        assert await sequences(store, stream_id) == [2, 3, 7]
        assert (await standing(store, stream_id)).stream.last_sequence == 7

    async def test_drop_newest_drops_all_the_rest_of_an_append(self, store):
        stream_id = await produced(store, DROP_NEWEST, items=100, size=100)
        batch = [Entry(1, b"." * 60), Entry(2, b"." * 60), Entry(3, b".")]
        dropped = await store.append(Append(stream_id=stream_id, epoch=1, entries=batch))
        assert dropped.dropped == (2, 3)

    @pytest.mark.parametrize("policy", [BLOCK, DROP_NEWEST])
    async def test_an_end_passes_a_full_buffer(self, store, policy):
        stream_id = await produced(store, policy, items=2)
        await put(store, stream_id, 1, 2)
        assert (await put(store, stream_id, 3, 3, end=StreamEnd(reason="stop"))).outcome is Outcome.STORED
        assert await sequences(store, stream_id) == [1, 2, 3]

    async def test_an_end_behind_what_waits_waits_too(self, store):
        stream_id = await produced(store, BLOCK, items=2)
        full = await put(store, stream_id, 1, 4, end=StreamEnd(reason="stop"))
        assert (full.outcome, full.accepted) == (Outcome.FULL, 2)
        assert (await standing(store, stream_id)).stream.state == StreamState.STREAM_STATE_LIVE

    async def test_an_end_behind_what_is_dropped_is_kept(self, store):
        stream_id = await produced(store, DROP_NEWEST, items=2)
        ended = await put(store, stream_id, 1, 4, end=StreamEnd(reason="stop"))
        assert ended.dropped == (3, 3)
        assert await sequences(store, stream_id) == [1, 2, 4]

    async def test_room_is_what_fits_before_the_policy_acts(self, store):
        stream_id = await produced(store, BLOCK, items=10, size=100)
        appended = await put(store, stream_id, 1, 4, size=10)
        assert (appended.room_items, appended.room_bytes) == (6, 60)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=4, seconds=60)])
        appended = await put(store, stream_id, 5, 8, size=10)
        assert (appended.room_items, appended.room_bytes) == (6, 60)
        await store.place([Place(stream_id=stream_id, subscriber_id="r", position=8, seconds=60)])
        asked = await store.append(Append(stream_id=stream_id, epoch=1, entries=[]))
        assert (asked.room_items, asked.room_bytes) in {(6, 60), (10, 100)}

    @pytest.mark.parametrize("policy", [DROP_OLDEST, DISCONNECT])
    async def test_who_never_waits_has_all_the_room(self, store, policy):
        stream_id = await produced(store, policy, items=10, size=100)
        appended = await put(store, stream_id, 1, 30, size=10)
        assert (appended.room_items, appended.room_bytes) == (10, 100)


class TestEnding:
    async def test_an_end_is_kept_and_read(self, store):
        stream_id = await produced(store)
        appended = await put(store, stream_id, 1, 2, end=StreamEnd(reason="stop"))
        assert (appended.outcome, appended.newest) == (Outcome.STORED, 2)
        stored = await standing(store, stream_id)
        assert stored.stream.state == StreamState.STREAM_STATE_ENDED
        assert stored.stream.end.reason == "stop"
        assert stored.stream.HasField("end_time")
        assert (await store.read(stream_id, 0, items=9, size=NEVER)).ended

    async def test_an_end_that_says_nothing_is_an_end(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 1, end=StreamEnd())
        stored = await standing(store, stream_id)
        assert stored.stream.state == StreamState.STREAM_STATE_ENDED
        assert stored.stream.HasField("end")

    async def test_an_end_with_an_error_is_a_failure(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 1, end=StreamEnd(error=status_pb2.Status(code=13)))
        assert (await standing(store, stream_id)).stream.state == StreamState.STREAM_STATE_FAILED

    async def test_an_end_that_is_said_again_is_accepted_and_told_once(self, store):
        stream_id = await produced(store)
        for _ in range(3):
            again = await put(store, stream_id, 1, 2, end=StreamEnd(reason="stop"))
            assert (again.outcome, again.accepted, again.newest) == (Outcome.STORED, 2, 2)
        assert [news.kind for news in await store.news("", 10)] == ["opened", "taken", "ended"]

    async def test_nothing_comes_after_an_end(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 2, end=StreamEnd())
        refused = await put(store, stream_id, 2, 4)
        assert (refused.outcome, refused.accepted, refused.newest) == (Outcome.ENDED, 1, 2)
        assert (await store.take(stream_id, "p", 1)).outcome is Outcome.ENDED

    async def test_who_closes_takes_the_next_sequence_and_the_producer_hears_of_it(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 2)
        assert (await put(store, stream_id, 2, 2, epoch=0, end=StreamEnd())).outcome is Outcome.AHEAD
        assert (await put(store, stream_id, 3, 3, epoch=0, end=StreamEnd())).outcome is Outcome.STORED
        refused = await put(store, stream_id, 2, 3)
        assert (refused.outcome, refused.accepted) == (Outcome.ENDED, 1)
        assert (await put(store, stream_id, 1, 2)).outcome is Outcome.STORED

    async def test_of_two_that_close_one_does(self, replicas):
        stream_id = await produced(replicas[0])
        closing = [
            Append(stream_id=stream_id, epoch=0, entries=[Entry(1, store_name)], end=StreamEnd(reason="closed"))
            for store_name in (b"a", b"b")
        ]
        done = await asyncio.gather(*(store.append(end) for store, end in zip(replicas, closing, strict=True)))
        assert sorted(appended.outcome.value for appended in done) == ["ended", "stored"]
        again = await asyncio.gather(*(store.append(end) for store, end in zip(replicas, closing, strict=True)))
        assert [appended.outcome for appended in again] == [appended.outcome for appended in done]
        assert (await standing(replicas[0], stream_id)).stream.state == StreamState.STREAM_STATE_FAILED

    async def test_events_expire_before_the_stream_does(self, open_store):
        store = await open_store(buffer_ttl_seconds=0.05, meta_ttl_seconds=60)
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3, end=StreamEnd(reason="stop"))
        stored = await until(lambda stored: not stored.readable, lambda: standing(store, stream_id))
        assert (stored.stream.first_sequence, stored.stream.last_sequence) == (0, 3)
        assert await store.read(stream_id, 0, items=9, size=NEVER) is None
        assert (await put(store, stream_id, 3, 3)).outcome is Outcome.STORED

    async def test_a_stream_expires_some_time_after_its_end(self, open_store):
        store = await open_store(buffer_ttl_seconds=0.05, meta_ttl_seconds=0.1)
        stream_id = await produced(store)
        await put(store, stream_id, 1, 3, end=StreamEnd(reason="stop"))
        await until(lambda found: not found, lambda: store.load([stream_id]))
        assert await store.page("w") == []


class TestReading:
    async def test_a_page_has_so_many_items(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 50)
        page = await store.read(stream_id, 10, items=7, size=NEVER)
        assert [entry.sequence for entry in page.entries] == list(range(11, 18))

    async def test_a_page_has_about_so_many_bytes_and_one_event_at_least(self, store):
        stream_id = await produced(store)
        await put(store, stream_id, 1, 20, size=10)
        await put(store, stream_id, 21, 30, size=1000)
        assert len((await store.read(stream_id, 0, items=100, size=35)).entries) == 4
        assert len((await store.read(stream_id, 0, items=100, size=1200)).entries) == 21
        assert len((await store.read(stream_id, 25, items=100, size=0)).entries) == 1

    async def test_nothing_is_after_the_newest(self, store):
        stream_id = await produced(store)
        page = await store.read(stream_id, 0, items=9, size=9)
        assert (list(page.entries), page.oldest, page.newest, page.ended) == ([], 0, 0, False)
        await put(store, stream_id, 1, 2)
        for after in (2, 3, (1 << 64) - 1):
            assert list((await store.read(stream_id, after, items=9, size=9)).entries) == []


class TestPolling:
    async def test_a_poll_returns_what_came_after_each_position(self, replicas):
        here, there = replicas
        first, second = await produced(here), await produced(here)
        await here.wake()  # so that this does not wait for news that nobody makes
        await here.poll({})
        await put(there, first, 1, 3)
        await put(there, second, 1, 2)
        polled = await here.poll({first: 1, second: 2})
        assert dict(polled.entries) == {first: entries_of(2, 3)}

    async def test_a_poll_waits_for_what_comes(self, replicas):
        here, there = replicas
        stream_id = await produced(there)
        await here.wake()  # so that this does not wait for news that nobody makes
        await here.poll({})
        async with asyncio.TaskGroup() as group:
            polling = group.create_task(here.poll({stream_id: 0}))
            await asyncio.sleep(0)
            await put(there, stream_id, 1, 1)
        assert dict(polling.result().entries) == {stream_id: entries_of(1, 1)}

    async def test_news_come_once_and_in_order(self, replicas):
        here, there = replicas
        await produced(there)
        await here.wake()  # so that this does not wait for news that nobody makes
        await here.poll({})
        stream_id = await produced(there)
        await put(there, stream_id, 1, 1, end=StreamEnd(reason="stop"))
        heard: list[Any] = []
        async with asyncio.timeout(10):
            while len(heard) < 3:
                heard += (await here.poll({})).news
        assert [news.kind for news in heard] == ["opened", "taken", "ended"]
        assert {(news.stream.stream_id, news.replica) for news in heard} == {(stream_id, "b")}
        opened, taken, ended = (news.stream for news in heard)
        assert (opened.state, taken.epoch) == (StreamState.STREAM_STATE_LIVE, 1)
        assert (ended.state, ended.last_sequence, ended.end.reason) == (StreamState.STREAM_STATE_ENDED, 1, "stop")

    async def test_a_poll_that_is_woken_returns(self, store, long_polls):
        for _ in range(3):
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(store.poll({}))
                await asyncio.sleep(0)
                await store.wake()

    async def test_who_is_woken_before_it_polls_returns_at_once(self, store, long_polls):
        for _ in range(2):
            await store.wake()
            async with asyncio.timeout(60):
                await store.poll({})


class TestNews:
    async def test_news_go_on_after_a_position(self, store):
        ids = [await created(store) for _ in range(5)]
        told = await store.news("", 3)
        assert [news.stream.stream_id for news in told] == ids[:3]
        assert [news.stream.stream_id for news in await store.news(told[1].position, 100)] == ids[2:]
        assert await store.news(await store.newest_news(), 100) == []

    async def test_before_the_first_news_is_a_position_too(self, store):
        position = await store.newest_news()
        assert await store.news(position, 10) == []
        stream_id = await created(store)
        assert [news.stream.stream_id for news in await store.news(position, 10)] == [stream_id]

    async def test_a_position_that_is_not_kept_is_refused(self, store):
        start = await store.newest_news()
        await created(store)
        early = await store.newest_news()
        for _ in range(6):
            await created(store)
        for position in (start, early, "nonsense", "1-2-3", "-1-0", "9" * 30 + "-0"):
            with pytest.raises(OutOfRange) as refused:
                await store.news(position, 10)
            assert refused.value.metadata["resume_token"] == position
        assert len(await store.news("", 10)) == 6


class TestPages:
    async def test_a_page_has_the_newest_first_and_the_next_goes_on(self, store):
        ids = [await created(store, workspace="v") for _ in range(7)]
        await created(store, workspace="other")
        ids.sort(reverse=True)
        page = await store.page("v", limit=3)
        assert [stored.stream.stream_id for stored in page] == ids[:3]
        page = await store.page("v", before=ids[2], limit=100)
        assert [stored.stream.stream_id for stored in page] == ids[3:]

    async def test_pages_may_be_of_one_execution_or_of_those_that_live(self, store):
        wanted = await produced(store, execution="e")
        other = await produced(store, execution="f")
        await put(store, other, 1, 1, end=StreamEnd())
        assert [stored.stream.stream_id for stored in await store.page("w", execution_id="e")] == [wanted]
        assert [stored.stream.stream_id for stored in await store.page("w", live_only=True)] == [wanted]
        assert await store.page("w", live_only=True, before=min(wanted, other)) == []
        assert await store.page("w", execution_id="f", live_only=True) == []
        assert await store.page("nowhere") == []


class TestLooking:
    async def test_a_stream_that_lives_too_long_is_due_until_it_ends(self, store):
        due, _ = await produced(store, seconds=0.05), await created(store)
        assert await until(bool, lambda: store.overdue(10)) == [due]
        await put(store, due, 1, 1, epoch=0, end=StreamEnd(reason="timeout"))
        assert await store.overdue(10) == []
        assert await store.live() == 1

    async def test_the_store_says_that_it_is_there(self, store):
        await store.check()
