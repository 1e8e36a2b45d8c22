"""What waits for the log has a bound, and only what waits counts."""

from __future__ import annotations

import asyncio

from mediamesh.api.flow.v1.execution_pb2 import Execution
from mediamesh.api.stream.v1.chunk_pb2 import Progress
from mediamesh.orchestrator.execution.journal import Journal, LogBounds

LARGE = Progress(message="x" * (3 * 1024 * 1024))
BOUNDS = LogBounds(event_bytes=4 * 1024 * 1024, events=1000, bytes=1 << 26)


class FakeLog:
    """Keeps the sizes of what is stored."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def append(self, batch):
        self.sizes += [event.ByteSize() for event in batch.events]


def journal(log):
    return Journal(log, Execution(execution_id="run"), BOUNDS)


async def fill(notes):
    """Record small events for ever."""
    while True:
        await notes.record("a")


async def test_what_is_given_up_before_the_log_has_room_takes_none() -> None:
    log = FakeLog()
    notes = journal(log)
    work = [fill(notes), *(notes.record("a", node_progress=LARGE) for _ in range(4))]
    waiting = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0)  # each goes on until there is no room
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)

    writing = asyncio.ensure_future(notes.write())
    async with asyncio.timeout(10):
        for _ in range(4):
            await notes.record("a", node_progress=LARGE)
        await notes.flush()
    writing.cancel()
    assert sum(size > LARGE.ByteSize() for size in log.sizes) == 4
