"""A streams server that hangs holds up a run for as long as its patience lasts, and not longer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic
from types import SimpleNamespace

import pytest

from mediamesh.api.flow.v1.execution_pb2 import Execution
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamLimits
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.orchestrator.execution import Bounds, Broadcast
from mediamesh.wire.errors import Cancelled

pytestmark = pytest.mark.slow

PATIENCE = 0.3


class FakeJournal:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.execution = Execution(execution_id="run", workspace_id="default")
        self.kinds: list[str] = []

    async def record(self, node_id="", **event):
        self.kinds += event


class FakeStreams:
    """Hangs at one step; the others go well.

    Attributes:
        sent: How many chunks it took.
        took: Set when it took one.
        closed: Streams that were closed in place of their producer.
        failed: Errors that streams ended with.
    """

    def __init__(self, hangs_at: str = "") -> None:
        self._hangs_at = hangs_at
        self.sent = 0
        self.took = asyncio.Event()
        self.closed: list[str] = []
        self.failed: list[object] = []

    async def _do(self, step):
        if step == self._hangs_at:
            await asyncio.Event().wait()

    async def open(self, **asked):
        await self._do("open")
        return OpenStreamResponse(stream_id="s", publish_token="t")

    @asynccontextmanager
    async def publish(self, stream_id, publish_token, **options):
        await self._do("publish")
        yield SimpleNamespace(
            start=lambda: self._do("start"), send=self._send, end=lambda: self._do("end"), fail=self._fail
        )

    async def _send(self, chunk):
        await self._do("send")
        self.sent += 1
        self.took.set()

    async def _fail(self, error):
        await self._do("fail")
        self.failed.append(error)

    async def close(self, stream_id, *, reason, error):
        self.closed.append(stream_id)
        return Stream(stream_id=stream_id)


def broadcast(streams, journal, chunks=4):
    tasks = set()

    def later(work) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    bounds = Bounds(chunks, 1 << 20)
    return Broadcast(streams, journal, bounds=bounds, patience_seconds=PATIENCE, later=later)


def chunk(number):
    return Chunk(sequence_number=number, content=TextContent(text="x"))


async def fed(carrying, count=50):
    carrying.start("node", "pin", StreamLimits())
    for number in range(1, count + 1):
        await carrying.put("node", "pin", chunk(number))
    await carrying.end("node", "pin")


@pytest.mark.parametrize("step", ["open", "publish", "start", "send", "end"])
async def test_a_server_that_hangs_is_given_up(step, caplog) -> None:
    journal, streams = FakeJournal(), FakeStreams(step)
    begin = monotonic()
    async with asyncio.timeout(20), broadcast(streams, journal) as carrying:
        await fed(carrying)
        await carrying.close(None)
    assert monotonic() - begin >= PATIENCE
    assert "the stream node.pin is not published to its end" in caplog.text
    assert journal.kinds == ([] if step == "open" else ["stream_available", "stream_complete"])
    assert streams.closed == ([] if step == "open" else ["s"])


async def test_a_server_that_is_well_gets_everything() -> None:
    journal, streams = FakeJournal(), FakeStreams()
    async with asyncio.timeout(20), broadcast(streams, journal) as carrying:
        await fed(carrying)
        await carrying.close(None)
    assert streams.sent == 50
    assert journal.kinds == ["stream_available", "stream_complete"]
    assert not streams.failed
    assert not streams.closed


@pytest.mark.parametrize("step", ["", "send", "fail"])
async def test_a_run_that_is_cancelled_is_not_held_up(step) -> None:
    journal, streams = FakeJournal(), FakeStreams(step)
    error = Cancelled("The run was cancelled.")
    async with asyncio.timeout(20), broadcast(streams, journal) as carrying:
        carrying.start("node", "pin", StreamLimits())
        await carrying.put("node", "pin", chunk(1))
        await carrying.close(error)
    assert step or streams.failed == [error]
    assert journal.kinds == ["stream_available", "stream_complete"]


async def test_a_run_that_breaks_off_leaves_no_stream_open() -> None:
    journal, streams = FakeJournal(), FakeStreams()
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(20), broadcast(streams, journal) as carrying:
            carrying.start("node", "pin", StreamLimits())
            await carrying.put("node", "pin", chunk(1))
            await streams.took.wait()
            raise ZeroDivisionError
    assert len(streams.failed) == 1


async def test_without_a_server_nothing_is_published() -> None:
    journal = FakeJournal()
    async with broadcast(None, journal) as carrying:
        await fed(carrying)
        await carrying.fail("node", Cancelled("x"))
        await carrying.close(None)
    assert not journal.kinds
