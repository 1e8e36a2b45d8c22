"""A run that is hard to take over keeps no other from it."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent, ExecutionStarted, NodeStarted, StreamAvailable
from mediamesh.api.stream.v1 import stream_service_pb2, stream_service_pb2_grpc
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.orchestrator.runlog.memory import Memory
from tests.orchestrator.cut_runs import cut_after
from tests.orchestrator.fake_stores import FakeStore, orchestrating_over
from tests.orchestrator.flow_texts import flow

CANCELLED = execution_pb2.EXECUTION_STATE_CANCELLED


@pytest.fixture
def own(settings):
    return settings(valkey_url="memory", lease_seconds=0.3, grace_seconds=0, streams_patience_seconds=60)


@pytest.fixture
async def whole(own):
    """Return a run of which others are cut."""
    async with orchestrating_over(FakeStore(Memory()), own) as mesh:
        events = [event async for event in mesh.flows.run(flow("make test.producer, params: {count: 1}"))]
        return await mesh.flows.get(events[0].execution_id)


async def left(memory, whole):
    """Store a run that somebody cancelled and nobody ended, with a stream that is open; return its id."""
    store = FakeStore(memory)
    events = [
        ExecutionEvent(execution_started=ExecutionStarted(flow=whole.flow)),
        ExecutionEvent(node_id="make", node_started=NodeStarted(agent_id="test.producer", attempt=1)),
        ExecutionEvent(node_id="make", stream_available=StreamAvailable(stream_id="s", pin="stream")),
    ]
    run = await cut_after(store, whole, events)
    await store.ask_to_cancel(run)
    return run


async def end_of(mesh, run):
    async with asyncio.timeout(5):
        return [event async for event in mesh.flows.watch(run)][-1].execution_finished.state


class FrozenStreams(stream_service_pb2_grpc.StreamServiceServicer):
    """A streams server that closes nothing before it is thawed."""

    def __init__(self):
        self.thawed = asyncio.Event()
        self.asked = 0

    async def CloseStream(self, request, context):
        self.asked += 1
        await self.thawed.wait()
        return stream_service_pb2.CloseStreamResponse()


async def test_a_streams_server_that_does_not_answer_holds_up_no_run_that_is_taken_over(own, whole) -> None:
    memory, frozen = Memory(), FrozenStreams()  # type: ignore[abstract]
    runs = [await left(memory, whole) for _ in range(3)]
    part = Part(
        services=[],
        register=lambda server: stream_service_pb2_grpc.add_StreamServiceServicer_to_server(frozen, server),
    )
    async with serving(ServerSettings(grace_seconds=0), part) as port:
        changed = own.model_copy(update={"streams_address": f"127.0.0.1:{port}"})
        async with orchestrating_over(FakeStore(memory), changed) as mesh:
            assert {await end_of(mesh, run) for run in runs} == {CANCELLED}
            frozen.thawed.set()
    assert frozen.asked == len(runs)


class Chokes(FakeStore):
    """Fails in a way that nobody thought of whenever it is asked for one run."""

    chokes_on = ""

    async def load(self, executions):
        if self.chokes_on in executions:
            raise ValueError("What is this?")
        return await self._store.load(executions)


async def test_a_run_that_cannot_be_read_keeps_no_other_from_its_end(own, whole) -> None:
    memory = Memory()
    store = Chokes(memory)
    store.chokes_on, other = await left(memory, whole), await left(memory, whole)
    async with orchestrating_over(store, own) as mesh:
        assert await end_of(mesh, other) == CANCELLED
