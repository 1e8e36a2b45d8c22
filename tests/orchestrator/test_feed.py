"""What a try did not take is there for the next one, and a try that is over takes nothing more."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1.chunk_pb2 import Chunk
from mediamesh.orchestrator.execution import Bounds
from mediamesh.orchestrator.execution.feed import Feed
from mediamesh.orchestrator.execution.inbox import Inbox
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

BOUNDS = Bounds(1, 1024)


@pytest.fixture
def inbox():
    return Inbox(values={}, optional=(), streams={"s": 1}, hazardous=(), bounds=BOUNDS)


async def numbers(frames, count):
    """Return the numbers of the next chunks."""
    return [(await anext(frames)).chunk.chunk.sequence_number for _ in range(count)]


async def waiting(frames):
    """Return a task that waits for the next frame."""
    task = asyncio.ensure_future(anext(frames, None))
    await asyncio.sleep(0)  # lets it begin
    return task


async def test_a_try_that_is_over_takes_nothing_from_the_next_one(inbox) -> None:
    async with Feed(inbox, BOUNDS) as feed, asyncio.timeout(10):
        first = feed.frames()
        await inbox.put("s", Chunk(sequence_number=1))
        assert await numbers(first, 1) == [1]
        late = await waiting(first)
        await feed.end_try()
        await inbox.put("s", Chunk(sequence_number=2))
        assert await late is None
        assert feed.is_whole
        assert await numbers(feed.frames(), 2) == [1, 2]


async def test_a_try_that_was_over_before_it_began_takes_nothing(inbox) -> None:
    async with Feed(inbox, BOUNDS) as feed, asyncio.timeout(10):
        first, second = feed.frames(), feed.frames()
        await inbox.put("s", Chunk(sequence_number=1))
        assert await anext(first, None) is None
        assert await numbers(second, 1) == [1]


async def test_the_last_try_is_over_with_the_feed(inbox) -> None:
    async with Feed(inbox, BOUNDS) as feed:
        late = await waiting(feed.frames())
    async with asyncio.timeout(10):
        assert await late is None


async def test_what_comes_between_two_tries_goes_to_the_second(settings, agents) -> None:
    source = flow(
        "make test.producer", "count test.refusing, params: {times: 1, how: late}", edges="make.stream>count.stream"
    )
    agents.release.clear()
    async with orchestrating(settings(stream_buffer_chunks=1, retry_pause_seconds=0.2)) as mesh:
        event, given = execution_pb2.ExecutionEvent(), []
        async for event in mesh.flows.run(source, timeout=10):
            if event.HasField("node_retry"):
                agents.release.set()
            if event.HasField("node_output"):
                given.append(event.node_output)
    agents.release.clear()
    assert event.execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    # Of three it reads one itself before it counts.
    assert [output.value.number for output in given if output.pin == "count"] == [2]
