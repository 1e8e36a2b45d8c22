"""A slow last reader holds up the first producer of a chain, and how far that one gets ahead has a bound."""

from __future__ import annotations

import asyncio
import math

import pytest

from mediamesh.agent import Agent, AgentSettings, parse_manifest, serving_agents
from mediamesh.api.flow.v1 import execution_pb2
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

pytestmark = pytest.mark.stack

CHAIN = flow(
    "make chain.source", "one chain.pass", "two chain.pass", "last chain.sink",
    edges="make.stream>one.stream one.stream>two.stream two.stream>last.stream",
)  # fmt: skip
CHUNKS = 1000
BUFFER = 8
# The SDK's bounds: 32 frames that leave, 64 chunks that are to be read. Of a call 256 KiB are taken ahead, as the SDK
# and the orchestrator ask, and 64 KiB wait at gRPC to be sent.
LEAVING, ENTERING, WINDOW, HANDS = 32, 64, (256 + 64) * 1024, 8


class Counts:
    """How many chunks were made and read, and how many may be read."""

    def __init__(self, size) -> None:
        self.size = size
        self.made = self.read = self.allowed = 0
        self.most_ahead = 0
        self.changed = asyncio.Condition()

    async def make(self):
        async with self.changed:
            self.made += 1
            self.most_ahead = max(self.most_ahead, self.made - self.read)

    async def take(self):
        async with self.changed:
            await self.changed.wait_for(lambda: self.read < self.allowed)
            self.read += 1
            self.changed.notify_all()

    async def let(self, count):
        """Let the last agent read so many more, and wait until it has."""
        async with self.changed:
            self.allowed += count
            self.changed.notify_all()
            await self.changed.wait_for(lambda: self.read == self.allowed)

    async def still(self):
        """Return how many are made, once no more are: nothing tells that a producer waits but that it makes none."""
        quiet = 0
        while quiet < 5:
            before = self.made
            await asyncio.sleep(0.1)  # see above
            quiet = quiet + 1 if self.made == before else 0
        return self.made


class Counted(Agent):
    text = ""

    def __init__(self, counts) -> None:
        self.counts = counts

    def describe(self):
        return parse_manifest(self.text)


class Source(Counted):
    text = "{id: chain.source, version: 1.0.0, outputs: [{name: stream, type: stream}]}"

    async def process(self, run):
        for _ in range(CHUNKS):
            await run.emit("stream", "x" * self.counts.size)
            await self.counts.make()


class Pass(Counted):
    text = (
        "{id: chain.pass, version: 1.0.0, inputs: [{name: stream, type: stream}],"
        " outputs: [{name: stream, type: stream}]}"
    )

    async def process(self, run):
        async for chunk in run.stream("stream"):
            await run.emit("stream", chunk.content.text)


class Sink(Counted):
    text = (
        "{id: chain.sink, version: 1.0.0, inputs: [{name: stream, type: stream}],"
        " outputs: [{name: count, type: number}]}"
    )

    async def process(self, run):
        async for _ in run.stream("stream"):
            await self.counts.take()
        return {"count": self.counts.read}


def bound(size):
    """Return how many chunks fit all that lies between the first agent and the last.

    At each of the three steps that is what waits at the SDK to leave and to be read, what waits on the pin, what gRPC
    takes ahead on its way to the orchestrator and on its way to the next agent, and what is in the hands of somebody.
    """
    return 3 * (LEAVING + BUFFER + ENTERING + 2 * math.ceil(WINDOW / size) + HANDS)


@pytest.mark.parametrize("size", [4_000, 50_000])
async def test_the_last_of_a_chain_holds_up_the_first(settings, size, record_property) -> None:
    counts = Counts(size)
    kinds = (Source(counts), Pass(counts), Sink(counts))
    async with (
        serving_agents(AgentSettings(grace_seconds=0), *kinds) as port,
        orchestrating(settings(agent_addresses=[f"127.0.0.1:{port}"], stream_buffer_chunks=BUFFER)) as mesh,
        asyncio.timeout(100),
    ):
        run = (await mesh.flows.start(CHAIN)).execution_id
        assert 3 * BUFFER < await counts.still() <= bound(size)
        for _ in range(2):
            await counts.let(100)
            assert await counts.still() - counts.read <= bound(size)
        record_property("ahead", counts.most_ahead)
        counts.allowed = CHUNKS
        await counts.let(0)
        events = [event async for event in mesh.flows.watch(run)]
    assert counts.most_ahead <= bound(size)
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    given = [event.node_output.value.number for event in events if event.HasField("node_output")]
    assert given == [CHUNKS]
