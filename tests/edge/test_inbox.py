from __future__ import annotations

import asyncio

from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent
from mediamesh.edge.inbox import Inbox


def event(sequence, size=0):
    made = PublishEvent(sequence=sequence)
    made.payload.data.content.text = "x" * size
    return made


async def fill(inbox, *events):
    for one in events:
        await inbox.put(one)
    inbox.close()


async def drain(inbox):
    got = []
    while (one := await inbox.get()) is not None:
        got.append(one.sequence)
    return got


async def test_events_come_out_in_order_and_end() -> None:
    inbox = Inbox()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(fill(inbox, *(event(number) for number in range(5000))))
        got = tasks.create_task(drain(inbox))
    assert got.result() == list(range(5000))


async def test_it_holds_so_many_bytes_and_no_more() -> None:
    inbox = Inbox()
    async with asyncio.timeout(10):
        filling = asyncio.create_task(fill(inbox, *(event(number, 400_000) for number in range(6))))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not filling.done()
        assert await drain(inbox) == list(range(6))
        await filling


async def test_an_event_larger_than_all_of_it_fits() -> None:
    inbox = Inbox()
    async with asyncio.timeout(10):
        await inbox.put(event(1, 3_000_000))
        inbox.close()
        assert await drain(inbox) == [1]


async def test_an_inbox_that_is_abandoned_ends_at_once() -> None:
    inbox = Inbox()
    async with asyncio.timeout(10):
        await inbox.put(event(1))
        inbox.abandon()
        assert await drain(inbox) == []
