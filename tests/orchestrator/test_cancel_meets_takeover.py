"""A cancellation reaches the run wherever it is, and where it comes from in the middle of a change of orchestrators."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.flow_service_pb2 import RunFlowRequest
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.orchestrator import running
from mediamesh.orchestrator.runlog import Fenced
from mediamesh.orchestrator.runlog.memory import Memory
from mediamesh.wire.errors import Unavailable
from tests.orchestrator.cut_runs import cut_after
from tests.orchestrator.fake_stores import FakeStore, orchestrating_over
from tests.orchestrator.flow_texts import flow

CANCELLED, SUCCEEDED = execution_pb2.EXECUTION_STATE_CANCELLED, execution_pb2.EXECUTION_STATE_SUCCEEDED
SLOW = flow("wait test.slow")
LEASE = 0.3


@pytest.fixture
def own(settings):
    return settings(valkey_url="memory", lease_seconds=LEASE, grace_seconds=0)


async def end_of(mesh, run):
    async with asyncio.timeout(5):
        return [event async for event in mesh.flows.watch(run)][-1].execution_finished.state


class Freezes(FakeStore):
    """Says nothing more of its orchestrator once it is frozen: neither that it lives nor what it does."""

    def __init__(self, memory):
        super().__init__(memory, lease_seconds=LEASE)
        self.frozen = asyncio.Event()

    async def renew(self, fences):
        if self.frozen.is_set():
            raise Unavailable("Frozen.")
        return await self._store.renew(fences)


@asynccontextmanager
async def lost(own, agents):
    """Yield an orchestrator that froze and lost a run, who has it now, the call at the first, the run, the frost."""
    memory = Memory()
    store = Freezes(memory)
    async with orchestrating_over(store, own) as one:
        call = one.stub.RunFlow(RunFlowRequest(source=SLOW))
        run = (await call.read()).event.execution_id
        await agents.until(lambda: agents.tries.get((run, "wait")) == [1])
        store.frozen.set()
        async with orchestrating_over(FakeStore(memory, lease_seconds=60), own) as two:
            await agents.until(lambda: agents.tries[run, "wait"] == [1, 2])
            yield one, two, call, run, store.frozen


@pytest.mark.parametrize("how", ["cancels", "leaves"])
async def test_an_orchestrator_that_does_not_know_yet_that_it_lost_a_run_tells_who_has_it(
    own, agents, release, how
) -> None:
    async with lost(own, agents) as (one, two, call, run, _):
        if how == "cancels":
            await one.flows.cancel(run)
        else:
            call.cancel()
        assert await end_of(two, run) == CANCELLED
        await agents.until(lambda: not agents.running[run])


async def test_a_caller_who_reads_on_where_the_run_was_lost_ends_it_by_leaving(own, agents, release) -> None:
    async with lost(own, agents) as (_, two, call, run, frozen):
        frozen.clear()
        # What it ran itself it gives up as soon as it sees that it lost it.
        await agents.until(lambda: agents.running[run] == 1)
        while not (await call.read()).event.HasField("execution_taken_over"):
            pass
        call.cancel()
        assert await end_of(two, run) == CANCELLED


class Interrupts(FakeStore):
    """Has another replica cancel a run just before this one takes it over."""

    async def append(self, batch):
        if batch.claim:
            await self._store.ask_to_cancel(batch.execution_id)
        await self._store.append(batch)


async def test_a_cancellation_is_heard_that_comes_while_a_run_is_taken_over(own, agents, release) -> None:
    memory = Memory()
    async with orchestrating_over(FakeStore(memory), own) as mesh:
        started = (await mesh.flows.start(SLOW)).execution_id
        await agents.until(lambda: agents.running[started] == 1)
        whole = await mesh.flows.cancel(started)
        events = [event async for event in mesh.flows.watch(started)]
    run = await cut_after(FakeStore(memory), whole, events[:2])
    async with orchestrating_over(Interrupts(memory, lease_seconds=LEASE), own) as mesh:
        assert await end_of(mesh, run) == CANCELLED


class Lags(FakeStore):
    """Takes no progress before it is let."""

    def __init__(self, memory):
        super().__init__(memory)
        self.holds = asyncio.Event()
        self.lets = asyncio.Event()
        self.asked = asyncio.Event()

    async def append(self, batch):
        if any(event.HasField("node_progress") for event in batch.events):
            self.holds.set()
            await self.lets.wait()
        await self._store.append(batch)

    async def ask_to_cancel(self, execution_id):
        await self._store.ask_to_cancel(execution_id)
        self.asked.set()


async def test_a_run_that_is_cancelled_while_it_is_handed_over_does_not_go_on(
    own, agents, release, monkeypatch
) -> None:
    monkeypatch.setattr(running, "_STOP_SECONDS", 30)
    memory, place, leave = Memory(), asyncio.get_running_loop().create_future(), asyncio.Event()
    lags = Lags(memory)

    async def live():
        async with orchestrating_over(lags, own) as one:
            place.set_result(one.address)
            await leave.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        life = tasks.create_task(live())
        async with connect(await place) as channel:
            flows = FlowClient(channel)
            run = (await flows.start(SLOW)).execution_id
            await lags.holds.wait()
            leave.set()
            # It is stopped, and waits until what it said is stored.
            await agents.until(lambda: agents.cancelled[run] == 1)
            cancelling = asyncio.ensure_future(flows.cancel(run))
            await lags.asked.wait()
            lags.lets.set()
            await life
            # Its server may have gone before it could answer.
            await asyncio.wait([cancelling])
    release.set()
    async with orchestrating_over(FakeStore(memory), own) as two:
        assert await end_of(two, run) == CANCELLED


class AnswersLate(FakeStore):
    """Refuses the first progress once it is asked whether runs are still held, which it answers when it is let."""

    def __init__(self, memory):
        super().__init__(memory, lease_seconds=LEASE)
        self.asked, self.lets, self.asked_again = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.refuses = True

    async def renew(self, fences):
        (self.asked_again if self.asked.is_set() else self.asked).set()
        await self.lets.wait()
        return await self._store.renew(fences)

    async def append(self, batch):
        if self.refuses and any(event.HasField("node_progress") for event in batch.events):
            await self.asked.wait()
            self.refuses = False
            raise Fenced(batch.execution_id)
        await self._store.append(batch)


async def test_an_answer_about_a_run_that_was_lost_does_not_stop_it_where_it_was_taken_over_again(
    own, agents, release
) -> None:
    store = AnswersLate(Memory())
    async with orchestrating_over(store, own) as mesh:
        run = (await mesh.flows.start(SLOW)).execution_id
        await agents.until(lambda: agents.tries.get((run, "wait")) == [1, 2])
        store.lets.set()
        async with asyncio.timeout(10):  # of a run that was stopped nothing more is asked
            await store.asked_again.wait()
        release.set()
        assert await end_of(mesh, run) == SUCCEEDED
