"""What a node owes its readers when it is stopped half way through giving: all of them still hear how it went."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.execution_pb2 import Execution
from mediamesh.api.flow.v1.flow_pb2 import FlowNode
from mediamesh.api.stream.v1.chunk_pb2 import Chunk
from mediamesh.orchestrator.execution import Bounds, Broadcast
from mediamesh.orchestrator.execution.inbox import Inbox, Skipped
from mediamesh.orchestrator.execution.journal import Journal, LogBounds
from mediamesh.orchestrator.execution.outbox import Outbox
from mediamesh.wire.errors import AgentFailed
from tests.orchestrator.fake_agents import STREAM, STRING, pin

BOUNDS = Bounds(8, 1024)
LOG = LogBounds(event_bytes=4096, events=100, bytes=65_536)


class Behind:
    """A journal that is behind: it takes nothing.

    Attributes:
        asked: Set when it was to take something.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def record(self, node_id="", **event):
        self.asked.set()
        await asyncio.Event().wait()


class Undecided(Inbox):
    """An inbox behind a condition that is open: a stream does not end there yet.

    Attributes:
        asked: Set when a stream was to end.
    """

    def __init__(self, **pins) -> None:
        super().__init__(**pins)
        self.asked = asyncio.Event()

    async def end(self, pin):
        self.asked.set()
        await asyncio.Event().wait()


def journal(log: Any = None):
    """Return a journal that nobody writes."""
    return Journal(log, Execution(execution_id="run"), LOG)


def inbox(kind=Inbox, *, values=(), streams=()):
    return kind(
        values=dict.fromkeys(values, 1), optional=(), streams=dict.fromkeys(streams, 1), hazardous=(), bounds=BOUNDS
    )


def outbox(output, *readers, journal):
    targets = {("a", output.name): [(reader, output) for reader in readers]}
    unheard = Broadcast(None, journal, bounds=BOUNDS, patience_seconds=0, later=lambda work: work.close())
    return Outbox(FlowNode(id="a", output_pins=[output]), targets, journal, unheard)


async def stopped(work, asked):
    """Stop work while it waits for who was asked."""
    task = asyncio.ensure_future(work)
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def ready(reader):
    async with asyncio.timeout(10):
        await reader.ready()


async def test_a_value_that_is_too_large_to_record_is_lost_to_its_readers() -> None:
    reader = inbox(values=["text"])
    out = outbox(pin("text", STRING), reader, journal=journal())
    with pytest.raises(AgentFailed, match="does not fit an event"):
        await out.give("text", Value(text="x" * 5000))
    await out.lose("a")
    with pytest.raises(Skipped):
        await ready(reader)


async def test_a_value_whose_node_is_stopped_while_the_log_is_behind_is_lost_to_its_readers() -> None:
    reader, behind = inbox(values=["text"]), Behind()
    out = outbox(pin("text", STRING), reader, journal=behind)
    await stopped(out.give("text", Value(text="hello")), behind.asked)
    await out.lose("a")
    with pytest.raises(Skipped):
        await ready(reader)


async def test_a_stream_whose_node_is_stopped_at_its_end_ends_once_for_each_reader() -> None:
    first: Any
    waiting: Any
    first, waiting, last = (inbox(kind, streams=["s"]) for kind in (Inbox, Undecided, Inbox))
    out = outbox(pin("s", STREAM), first, waiting, last, journal=journal())
    await out.stream("s", Chunk(sequence_number=1))
    await stopped(out.finish(), waiting.asked)
    await out.lose("a")
    assert [await first.pipes["s"].get(), await first.pipes["s"].get()] == [Chunk(sequence_number=1), None]
    for reader in (waiting, last):
        with pytest.raises(Skipped):
            await ready(reader)
