"""A store that is away for less than a lease is waited for, whatever is asked of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.orchestrator.runlog import RunLog, reader
from mediamesh.orchestrator.runlog.memory import Memory
from tests.orchestrator.cut_runs import cut_after
from tests.orchestrator.fake_stores import FakeStore, LosesConnections, orchestrating_over
from tests.orchestrator.flow_texts import flow
from tests.orchestrator.test_run_log import batch, execution

SUCCEEDED = execution_pb2.EXECUTION_STATE_SUCCEEDED
COUNT = flow("make test.producer, params: {count: 40}", "count test.consumer", edges="make.stream>count.stream")


@pytest.fixture
def own(settings, monkeypatch):
    monkeypatch.setattr(reader, "_RETRY_SECONDS", 0.01)
    return settings(valkey_url="memory", lease_seconds=2)


async def test_a_caller_who_reads_behind_what_is_in_memory_gets_all_and_the_run_goes_on(own, monkeypatch) -> None:
    monkeypatch.setattr(reader, "_RING_EVENTS", 1)
    store = LosesConnections(Memory())
    async with orchestrating_over(store, own) as mesh:
        events = [event async for event in mesh.flows.run(COUNT)]
    assert store.lost
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].execution_finished.state == SUCCEEDED


async def test_who_takes_a_run_over_reads_on_and_does_not_give_it_up(own) -> None:
    memory = Memory()
    async with orchestrating_over(FakeStore(memory), own) as mesh:
        events = [event async for event in mesh.flows.run(COUNT)]
        whole = await mesh.flows.get(events[0].execution_id)
    (last,) = [at for at, event in enumerate(events) if event.node_id == "make" and event.HasField("node_finished")]
    run = await cut_after(FakeStore(memory), whole, events[: last + 1])
    store = LosesConnections(memory)
    async with asyncio.timeout(10), orchestrating_over(store, own) as mesh:
        events = [event async for event in mesh.flows.watch(run)]
    assert store.lost
    assert [event.WhichOneof("event") for event in events].count("execution_taken_over") == 1
    assert events[-1].execution_finished.state == SUCCEEDED
    (count,) = [event for event in events if event.HasField("node_output") and event.node_id == "count"]
    assert count.node_output.value.number == 40


async def test_a_silent_run_of_another_replica_is_watched_on(monkeypatch) -> None:
    monkeypatch.setattr(reader, "_RETRY_SECONDS", 0.01)
    store: Any = LosesConnections(Memory())
    run = execution()
    log = RunLog(store, heartbeat_seconds=0.02, lease_seconds=60)
    await store.create(run)
    async with aclosing(log.watch(run.execution_id, 0)) as events:
        assert (await anext(events)).HasField("heartbeat")
        # It is in the store, and nothing tells of it here.
        await store.append(batch(run.execution_id, 1))
        while (event := await anext(events)).HasField("heartbeat"):
            pass
        assert event.sequence == 1
    assert (run.execution_id,) in store.lost
