from __future__ import annotations

import asyncio

import pytest

from mediamesh.media.budget import Budget


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_needs_more_than_is_left_waits_for_its_turn() -> None:
    budget, order = Budget(10), []
    leave = [asyncio.Event() for _ in range(4)]

    async def hold(index, size):
        async with budget.reserve(size):
            order.append(index)
            await leave[index].wait()

    async with asyncio.TaskGroup() as tasks:
        for index, size in enumerate((6, 6, 1, 4)):
            tasks.create_task(hold(index, size))
        await settle()
        assert order == [0]
        leave[0].set()
        await settle()
        assert order == [0, 1, 2]
        for event in leave:
            event.set()
    assert order == [0, 1, 2, 3]
    assert budget.free_bytes == 10


async def test_more_than_all_takes_all() -> None:
    budget = Budget(10)
    async with budget.reserve(99):
        assert budget.free_bytes == 0
    assert budget.free_bytes == 10


async def test_a_waiter_that_leaves_lets_those_behind_it_in() -> None:
    budget = Budget(10)

    async def hold(size):
        async with budget.reserve(size):
            return size

    async with budget.reserve(6):
        large, small = asyncio.ensure_future(hold(9)), asyncio.ensure_future(hold(3))
        await settle()
        assert not small.done()
        large.cancel()
        assert await small == 3
        with pytest.raises(asyncio.CancelledError):
            await large
    assert budget.free_bytes == 10


async def test_a_waiter_that_is_granted_and_cancelled_at_once_gives_back() -> None:
    budget = Budget(10)
    first = budget.reserve(10)
    await first.__aenter__()
    waiting = asyncio.ensure_future(budget.reserve(10).__aenter__())
    await settle()
    await first.__aexit__(None, None, None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.free_bytes == 10


async def test_who_holds_all_and_who_waits_may_leave_in_the_same_moment() -> None:
    budget = Budget(10)

    async def hold():
        async with budget.reserve(10):
            await asyncio.Event().wait()

    calls = [asyncio.ensure_future(hold()) for _ in range(3)]
    await settle()
    for call in calls:
        call.cancel()
    left = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in left] == [asyncio.CancelledError] * 3
    assert budget.free_bytes == 10
