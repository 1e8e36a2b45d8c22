from __future__ import annotations

import asyncio

import pytest

from mediamesh.kit.to_the_end import to_the_end


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_it_gives_is_given_on() -> None:
    async def work():
        return 42

    assert await to_the_end(work()) == 42


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_work_is_done_before_its_caller_is_cancelled(cancellations) -> None:
    go_on, left, steps = asyncio.Event(), asyncio.Event(), []

    async def work():
        await go_on.wait()
        steps.append("done")

    async def call():
        try:
            await to_the_end(work(), left)
        finally:
            steps.append("left")

    calling = asyncio.ensure_future(call())
    await settle()
    for _ in range(cancellations):
        calling.cancel()
        await settle()
    assert left.is_set()
    assert not steps
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert steps == ["done", "left"]


async def test_work_that_fails_after_its_caller_was_cancelled_changes_nothing() -> None:
    go_on = asyncio.Event()

    async def work():
        await go_on.wait()
        raise ZeroDivisionError

    calling = asyncio.ensure_future(to_the_end(work()))
    await settle()
    calling.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
