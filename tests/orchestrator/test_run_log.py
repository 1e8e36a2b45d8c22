"""Valkey and memory keep the same promises, and watchers of either lose nothing."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, aclosing

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent
from mediamesh.api.stream.v1 import chunk_pb2
from mediamesh.orchestrator.runlog import Fenced, RunLog
from mediamesh.orchestrator.runlog.abandoned import claim, end_abandoned
from mediamesh.orchestrator.runlog.identity import new_id
from mediamesh.orchestrator.runlog.memory import Memory, MemoryStore
from mediamesh.orchestrator.runlog.parts import parts_of
from mediamesh.orchestrator.runlog.ports import Batch
from mediamesh.orchestrator.runlog.valkey import ValkeyStore
from mediamesh.orchestrator.state import begun
from mediamesh.wire.errors import NotFound, OutOfRange, Unavailable


@pytest.fixture(params=["memory", "valkey"])
async def make_store(request, valkey_url):
    async with AsyncExitStack() as stack:
        memory = Memory()
        url = (
            valkey_url.removesuffix("/0") + "/6"
        )  # in the usual place other tests' orchestrators take over what nobody holds

        async def make(*, ttl_seconds=60.0, lease_seconds=60.0, replica=""):
            replica = replica or secrets.token_hex(4)
            options = {"replica": replica, "ttl_seconds": ttl_seconds, "lease_seconds": lease_seconds}
            if request.param == "memory":
                return MemoryStore(memory, **options)
            return await stack.enter_async_context(ValkeyStore.open(url, **options))

        yield make


def execution(workspace_id="default"):
    flow = flow_pb2.Flow(id="f", nodes=[flow_pb2.FlowNode(id="a", type="t.t"), flow_pb2.FlowNode(id="b", type="t.t")])
    return begun(Execution(execution_id=new_id(), workspace_id=workspace_id, flow=flow))


def progress(run, number, message=""):
    return ExecutionEvent(
        execution_id=run, sequence=number, node_id="a", node_progress=chunk_pb2.Progress(percent=1, message=message)
    )


def finished(run, number):
    state = execution_pb2.EXECUTION_STATE_SUCCEEDED
    return ExecutionEvent(
        execution_id=run, sequence=number, execution_finished=execution_pb2.ExecutionFinished(state=state)
    )


def batch(run, *numbers, **options):
    return Batch(execution_id=run, events=[progress(run, number) for number in numbers], changed={}, **options)


async def sequences(store, run, after=0, limit=100):
    return [event.sequence for event in await store.read(run, after, limit)]


async def test_events_are_kept_in_order_and_read_from_anywhere(make_store) -> None:
    store, run = await make_store(), execution()
    await store.create(run)
    await store.append(batch(run.execution_id, 1, 2, 3))
    await store.append(batch(run.execution_id, 4))
    assert await sequences(store, run.execution_id) == [1, 2, 3, 4]
    assert await sequences(store, run.execution_id, 2) == [3, 4]
    assert await sequences(store, run.execution_id, 0, 2) == [1, 2]
    assert await sequences(store, run.execution_id, 9) == []


async def test_only_the_next_event_is_appended_and_the_same_again_is_no_fault(make_store) -> None:
    store, run = await make_store(), execution()
    await store.create(run)
    await store.append(batch(run.execution_id, 1, 2))
    await store.append(batch(run.execution_id, 1, 2))
    for wrong in (batch(run.execution_id, 4), batch(new_id(), 1)):
        with pytest.raises(Fenced):
            await store.append(wrong)
    with pytest.raises(Fenced):
        await store.append(
            Batch(execution_id=run.execution_id, events=[progress(run.execution_id, 2, "other")], changed={})
        )
    assert await sequences(store, run.execution_id) == [1, 2]


async def test_another_replica_may_not_append_and_nobody_may_after_the_end(make_store) -> None:
    ours, other, run = await make_store(), await make_store(), execution()
    await ours.create(run)
    await ours.append(batch(run.execution_id, 1))
    with pytest.raises(Fenced):
        await other.append(batch(run.execution_id, 2))
    with pytest.raises(Fenced):
        await other.append(batch(run.execution_id, 2, abandoned=True))
    await ours.append(batch(run.execution_id, 2, ended=True))
    with pytest.raises(Fenced):
        await ours.append(batch(run.execution_id, 3))
    assert await ours.renew({run.execution_id: 0}) == [run.execution_id]


async def test_the_oldest_events_go_when_told(make_store) -> None:
    store, run = await make_store(), execution()
    await store.create(run)
    await store.append(batch(run.execution_id, 1, 2, 3, 4))
    await store.append(batch(run.execution_id, 5, floor=4))
    assert await sequences(store, run.execution_id) == [4, 5]
    (stored,) = await store.load([run.execution_id])
    assert stored.execution.last_sequence == 5


async def test_an_execution_is_stored_in_parts_and_comes_back_whole(make_store) -> None:
    store, run = await make_store(), execution()
    await store.create(run)
    run.nodes[1].state = execution_pb2.NODE_STATE_SUCCEEDED
    changed = parts_of(run, ["b"], head=False)
    await store.append(Batch(execution_id=run.execution_id, events=[progress(run.execution_id, 1)], changed=changed))
    run.last_sequence = 1
    (stored,) = await store.load([run.execution_id, new_id()])
    assert stored.execution == run
    assert stored.held


async def test_pages_are_newest_first_and_by_workspace(make_store) -> None:
    store, workspace = await make_store(), secrets.token_hex(4)
    runs = [execution(workspace) for _ in range(5)]
    for run in runs:
        await store.create(run)
    await store.create(execution(f"{workspace}x"))
    ids = sorted((run.execution_id for run in runs), reverse=True)
    assert await store.page(workspace, "", 3) == ids[:3]
    assert await store.page(workspace, ids[2], 3) == ids[3:]
    assert await store.page(workspace, ids[4], 3) == []


async def test_a_wait_ends_with_events_of_others_letters_and_wakes(make_store, monkeypatch) -> None:
    # By itself a wait ends too late for this test.
    monkeypatch.setattr("mediamesh.orchestrator.runlog.valkey._BLOCK_MS", 60_000)
    monkeypatch.setattr("mediamesh.orchestrator.runlog.memory._BLOCK_SECONDS", 60.0)
    ours, other, run = await make_store(), await make_store(), execution()
    await ours.create(run)
    async with asyncio.timeout(30):
        await other.wake()
        assert await other.poll({}) == ([], [])
        await ours.append(batch(run.execution_id, 1, 2))
        assert [event.sequence for event in (await other.poll({run.execution_id: 1}))[0]] == [2]
        await other.ask_to_cancel(run.execution_id)
        assert await ours.poll({}) == ([], [run.execution_id])


async def lapsed_run(make_store):
    """Return a run whose replica is gone, that replica's store, and those of two others."""
    ours, other, third, run = await make_store(lease_seconds=0.01), await make_store(), await make_store(), execution()
    await ours.create(run)
    await ours.append(batch(run.execution_id, 1))
    await asyncio.sleep(0.03)  # the lease is the store's own clock
    return run, ours, other, third


async def test_a_run_that_nobody_holds_is_named_until_it_is_held_or_has_ended(make_store) -> None:
    run, ours, other, _ = await lapsed_run(make_store)
    assert run.execution_id in await other.lapsed(1000)
    assert await ours.renew({run.execution_id: 1}) == [run.execution_id]
    (stored,) = await other.load([run.execution_id])
    assert await claim(other, stored, "other")
    assert run.execution_id not in await ours.lapsed(1000)
    await other.release(run.execution_id, 0)
    assert (await ours.load([run.execution_id]))[0].held
    await other.release(run.execution_id, 1)
    assert run.execution_id in await ours.lapsed(1000)
    (stored,) = await ours.load([run.execution_id])
    assert await end_abandoned(ours, stored, execution_pb2.EXECUTION_STATE_FAILED, Unavailable("Gone."))
    assert run.execution_id not in await ours.lapsed(1000)


async def test_one_replica_takes_a_run_over_and_what_an_earlier_holder_says_is_refused(make_store) -> None:
    run, ours, other, third = await lapsed_run(make_store)
    (first,), (second,) = await other.load([run.execution_id]), await third.load([run.execution_id])
    assert not first.held
    assert sorted(await asyncio.gather(claim(other, first, "other"), claim(third, second, "third"))) == [False, True]
    (stored,) = await ours.load([run.execution_id])
    assert (stored.held, stored.fence, stored.execution.takeovers) == (True, 1, 1)
    newest = stored.execution.last_sequence
    assert [event.WhichOneof("event") for event in await ours.read(run.execution_id, 1, 10)] == ["execution_taken_over"]
    winner, name = (other, "other") if first.execution.takeovers else (third, "third")
    with pytest.raises(Fenced):
        await ours.append(batch(run.execution_id, newest + 1))
    await winner.append(batch(run.execution_id, newest + 1, fence=1))
    await winner.release(run.execution_id, 1)
    # Nobody holds it now; an older fence still does not count.
    with pytest.raises(Fenced):
        await ours.append(batch(run.execution_id, newest + 2))
    assert await ours.renew({run.execution_id: 0}) == [run.execution_id]
    assert name


async def test_a_run_that_never_began_is_forgotten_whole(make_store) -> None:
    store, run = await make_store(), execution(secrets.token_hex(4))
    await store.create(run)
    await store.discard(run)
    assert await store.load([run.execution_id]) == []
    assert await store.page(run.workspace_id, "", 10) == []


async def test_a_cancellation_waits_for_who_takes_the_run_over(make_store) -> None:
    run, ours, other, _ = await lapsed_run(make_store)
    await other.ask_to_cancel(run.execution_id)
    (stored,) = await ours.load([run.execution_id])
    assert stored.cancelled
    await other.ask_to_cancel("nobody")


async def test_who_runs_what_somebody_asked_to_cancel_hears_of_it_though_the_letter_is_lost(make_store) -> None:
    run, ours, other, _ = await lapsed_run(make_store)
    (stored,) = await other.load([run.execution_id])
    await ours.ask_to_cancel(run.execution_id)
    assert await claim(other, stored, "other")
    assert await other.renew({run.execution_id: 1}) == [run.execution_id]
    assert run.execution_id not in await ours.lapsed(1000)
    await other.append(batch(run.execution_id, stored.execution.last_sequence + 1, fence=1))


async def test_what_the_client_gave_is_stored_once_and_comes_back(make_store) -> None:
    store, run = await make_store(), execution()
    run.inputs["up.file"].text = "hello"
    await store.create(run)
    await store.append(
        Batch(execution_id=run.execution_id, events=[progress(run.execution_id, 1)], changed=parts_of(run))
    )
    (stored,) = await store.load([run.execution_id])
    assert stored.execution.inputs["up.file"].text == "hello"


async def test_a_run_whose_replica_is_gone_is_ended_once(make_store) -> None:
    run, ours, other, third = await lapsed_run(make_store)
    (first,), (second,) = await other.load([run.execution_id]), await third.load([run.execution_id])
    gone = (execution_pb2.EXECUTION_STATE_FAILED, Unavailable("Gone."))
    assert sorted(await asyncio.gather(end_abandoned(other, first, *gone), end_abandoned(third, second, *gone))) == [
        False,
        True,
    ]
    events = await other.read(run.execution_id, 0, 100)
    assert [event.WhichOneof("event") for event in events] == [
        "node_progress", "node_cancelled", "node_cancelled", "execution_finished",
    ]  # fmt: skip
    assert events[-1].execution_finished.error.code == Unavailable.code.value[0]
    with pytest.raises(Fenced):
        await ours.append(batch(run.execution_id, 2))


async def test_what_nobody_asks_for_expires(make_store) -> None:
    # The same replica with two settings: a run that expires before it ends is none that ends.
    keeps, store = await make_store(replica="keeps"), await make_store(ttl_seconds=0.02, replica="keeps")
    run, never_began = execution(), execution()
    await keeps.create(run)
    await store.append(batch(run.execution_id, 1, ended=True))
    await store.create(never_began)
    await asyncio.sleep(0.05)  # expiry is the store's own clock
    assert await store.load([run.execution_id, never_began.execution_id]) == []
    assert await sequences(store, run.execution_id) == []


class Reader:
    """Watches a run, and stops and resumes as it is told."""

    def __init__(self, log: RunLog, run: str) -> None:
        self._log, self._run = log, run
        self.position = 0
        self.lost: list[tuple[int, int]] = []
        self.seen: list[int] = []

    async def read(self, count: int) -> None:
        async with aclosing(self._log.watch(self._run, self.position)) as events:
            while count and (event := await anext(events, None)) is not None:
                if event.HasField("gap"):
                    assert event.gap.first_sequence == self.position + 1
                    self.lost.append((event.gap.first_sequence, event.gap.last_sequence))
                    self.position = event.gap.last_sequence
                else:
                    assert event.sequence == self.position + 1
                    self.seen.append(event.sequence)
                    self.position = event.sequence
                    count -= 1


class RunLogMachine(RuleBasedStateMachine):
    """Appends, trims, watches here and on another replica, stops and resumes in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.newest, self.floor, self.ended = 0, 1, False
        self.run = execution()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        memory = Memory()
        stores = [
            MemoryStore(memory, replica=replica, ttl_seconds=3600, lease_seconds=3600) for replica in ("ours", "other")
        ]
        self.logs = [RunLog(store, heartbeat_seconds=3600, lease_seconds=3600) for store in stores]
        self.logs[0].own(self.run.execution_id)
        await stores[0].create(self.run)
        self.readers = [Reader(log, self.run.execution_id) for log in self.logs]

    @precondition(lambda self: not self.ended)
    @rule(count=st.integers(1, 400), keep=st.integers(1, 500), end=st.sampled_from([False, False, False, True]))
    def append(self, count, keep, end) -> None:
        run = self.run.execution_id
        events = [progress(run, self.newest + number) for number in range(1, count + 1)]
        if end:
            events[-1] = finished(run, self.newest + count)
        self.newest += count
        self.floor = max(self.floor, self.newest - keep + 1)
        self.ended = end
        self.loop.run_until_complete(
            self.logs[0].append(Batch(execution_id=run, events=events, changed={}, floor=self.floor, ended=end))
        )

    @rule(index=st.integers(0, 1), count=st.integers(1, 300))
    def read(self, index, count) -> None:
        reader = self.readers[index]
        there = self.newest - max(reader.position, self.floor - 1)
        self.loop.run_until_complete(self._read(reader, min(count, there)))

    async def _read(self, reader, count) -> None:
        async with asyncio.timeout(5):
            if count:
                await reader.read(count)

    @rule(index=st.integers(0, 1), ahead=st.integers(1, 5))
    def read_the_future(self, index, ahead) -> None:
        async def refused() -> None:
            with pytest.raises(OutOfRange, match=f"the newest is {self.newest}"):
                await anext(self.logs[index].watch(self.run.execution_id, self.newest + ahead))

        self.loop.run_until_complete(refused())

    @invariant()
    def nothing_is_lost_that_was_not_announced(self) -> None:
        for reader in self.readers:
            announced = [number for first, last in reader.lost for number in range(first, last + 1)]
            assert sorted(reader.seen + announced) == list(range(1, reader.position + 1))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


RunLogMachine.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=20, deadline=None)
TestRunLogMachine = RunLogMachine.TestCase


async def test_a_run_that_nobody_knows_is_not_found(make_store) -> None:
    log = RunLog(await make_store(), heartbeat_seconds=1, lease_seconds=1)
    with pytest.raises(NotFound):
        await anext(log.watch("nobody", 0))


async def test_a_silent_run_gives_heartbeats_with_the_newest_sequence(make_store) -> None:
    store, run = await make_store(), execution()
    log = RunLog(store, heartbeat_seconds=0.02, lease_seconds=60)
    log.own(run.execution_id)
    await store.create(run)
    await log.append(batch(run.execution_id, 1))
    async with aclosing(log.watch(run.execution_id, 0)) as events:
        assert (await anext(events)).sequence == 1
        for _ in range(2):
            assert (await anext(events)).heartbeat.last_sequence == 1
