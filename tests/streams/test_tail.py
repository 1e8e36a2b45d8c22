"""The tail of a stream: what it holds, what it lets go, whom it wakes and how often."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.api.stream.v1.stream_pb2 import Stream
from mediamesh.streams.events import Event
from mediamesh.streams.log.ports import Stored
from mediamesh.streams.rate import TokenBucket
from mediamesh.streams.tail import Room, Tail, Waiter


def events(first, last, size=10):
    return [Event(number, b"x" * size) for number in range(first, last + 1)]


@pytest.fixture
async def room():
    return Room()


@pytest.fixture
async def tail(room):
    return new_tail(room)


def new_tail(room):
    stream = Stream(stream_id="stream", last_sequence=5)
    return Tail(
        Stored(stream=stream, token_digest="", producer_id="", readable=True, closed=False),
        asyncio.get_running_loop(),
        room,
    )


def sequences(batch):
    return [event.sequence for event in batch.events] if batch else None


async def test_what_is_known_already_changes_nothing(tail) -> None:
    tail.push(events(6, 8), after=5, newest=8)
    tail.push(events(4, 9), after=3, newest=9)
    assert sequences(tail.after(5)) == [6, 7, 8, 9]
    assert (tail.floor, tail.newest) == (5, 9)


async def test_events_after_others_that_were_not_seen_are_a_new_beginning(tail) -> None:
    tail.push(events(6, 8), after=5, newest=8)
    tail.push(events(11, 12), after=10, newest=12)
    assert (tail.floor, tail.newest) == (10, 12)
    assert sequences(tail.after(10)) == [11, 12]


async def test_a_stream_that_is_further_than_was_seen_is_read_from_the_log(tail) -> None:
    tail.push(events(6, 8), after=5, newest=8)
    tail.advance(10, ended=True)
    assert (tail.floor, tail.newest, tail.ended) == (10, 10, True)
    assert tail.after(10) is None


async def test_a_batch_ends_where_events_were_dropped(tail) -> None:
    tail.push([*events(6, 7), *events(10, 12)], after=5, newest=14)
    assert sequences(tail.after(5)) == [6, 7]
    for position in (7, 8, 9):
        assert sequences(tail.after(position)) == [10, 11, 12]
    assert sequences(tail.after(11)) == [12]
    assert tail.after(12) is None
    assert tail.newest == 14


async def test_the_ring_is_bounded_in_items_and_in_bytes(tail) -> None:
    tail.push(events(6, 1005), after=5, newest=1005)
    assert tail.floor == 1005 - 256
    tail.push(events(1006, 1055, 500_000), after=1005, newest=1055)
    assert tail.floor == 1055 - 33
    tail.push(events(1056, 1056, 20_000_000), after=1055, newest=1056)
    assert sequences(tail.after(1055)) == [1056]
    assert tail.floor == 1055


async def test_all_rings_together_are_bounded_in_bytes_and_give_back_what_they_held(tail, room) -> None:
    others = [new_tail(room) for _ in range(5)]
    for one in others:
        one.push(events(6, 45, 500_000), after=5, newest=45)
    assert [one.floor for one in others] == [12, 12, 12, 41, 41]
    tail.push(events(6, 45, 500_000), after=5, newest=45)
    assert tail.floor == 41
    assert room.used < 68 * 1024 * 1024
    for one in (*others, tail):
        one.close()
    assert room.used == 0


async def test_readers_at_one_position_share_one_batch(tail) -> None:
    tail.push(events(6, 8), after=5, newest=8)
    assert tail.after(5) is tail.after(5)
    assert tail.after(5).frame() is tail.after(5).frame()


async def test_events_that_come_faster_than_readers_are_served_gather_until_it_is_their_turn(tail) -> None:
    batches = []
    tail.users = 100

    async def read():
        position, waiter = 5, Waiter()
        while position < 45:
            await tail.wait(waiter, for_turn=position < tail.newest)
            if (batch := tail.after(position)) is None:
                continue
            position = batch.events[-1].sequence
            batches.append(len(batch.events))
            await asyncio.sleep(0.001)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(read())
        for number in range(6, 46):
            await asyncio.sleep(0.001)
            tail.push(events(number, number), after=number - 1, newest=number)
    assert tail.is_crowded()
    assert sum(batches) == 100 * 40
    assert max(batches) > 1


@pytest.mark.stack
async def test_a_reader_that_does_not_come_back_holds_nobody_up(tail) -> None:
    read = []

    async def wait_once(name):
        await tail.wait(Waiter())
        read.append(name)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(wait_once(number))
        await asyncio.sleep(0)
        tail.push(events(6, 6), after=5, newest=6)
    assert len(read) == 200


async def test_many_readers_are_woken_some_in_each_turn_and_each_of_them(tail) -> None:
    order = []

    async def read(name):
        await tail.wait(Waiter())
        order.append(name)

    async def do_other_work():
        while len(order) < 100:
            order.append("other")
            await asyncio.sleep(0)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(read(number))
        await asyncio.sleep(0)
        tail.push(events(6, 6), after=5, newest=6)
        tasks.create_task(do_other_work())
    readers = [name for name in order if name != "other"]
    assert sorted(readers) == list(range(100))
    assert "other" in order[: order.index(readers[-1])]


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(100, 0.0)
    assert [bucket.take(0.0) for _ in range(25)] == [0.0] * 25
    assert bucket.take(0.0) == pytest.approx(0.01)
    assert bucket.take(0.0) == pytest.approx(0.02)
    assert bucket.take(1.0) == 0.0
