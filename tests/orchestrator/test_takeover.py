"""An orchestrator is killed in mid-run, and another one goes on with what it ran."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
from redis import asyncio as redis

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.wire.errors import MeshError, Unavailable
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import HELD, flow
from tests.orchestrator.processes import orchestrator_process
from tests.orchestrator.test_broadcast import streaming

pytestmark = pytest.mark.stack

SUCCEEDED, FAILED = execution_pb2.EXECUTION_STATE_SUCCEEDED, execution_pb2.EXECUTION_STATE_FAILED
CANCELLED = execution_pb2.EXECUTION_STATE_CANCELLED
RUNS = execution_pb2.NODE_STATE_RUNNING


@pytest.fixture(scope="session")
def own(settings, valkey_url):
    """Return a function that makes settings for a log of our own: no other test takes runs over there."""

    def make(**changes):
        # So long nothing holds up a process: a run is lost when the test has its lease lapse, and not before.
        return settings(**{"valkey_url": valkey_url.removesuffix("/0") + "/7", "lease_seconds": 60, **changes})

    return make


async def lapse(settings, run):
    """Have the lease of a run lapse, as it does when its orchestrator has shown no life for so long."""
    async with redis.Redis.from_url(settings.valkey_url, protocol=2) as valkey:
        assert await valkey.delete(f"mm:run:{{{run}}}:lease")
        await valkey.zadd("mm:runs:open", {run: 0}, xx=True)


async def all_of(events):
    return [event async for event in events]


def of_kind(events, kind):
    return [event for event in events if event.WhichOneof("event") == kind]


def started(events, node_id):
    return [event.node_started.attempt for event in of_kind(events, "node_started") if event.node_id == node_id]


async def until(mesh, run, condition):
    """Wait until a condition over what is known of a run holds."""
    async with asyncio.timeout(15):
        async for _ in mesh.flows.watch(run):
            if condition(await mesh.flows.get(run)):
                return


def stands(**states):
    """Return the condition that these nodes are in these states."""

    def holds(run):
        nodes = [node for node in run.nodes if node.node_id in states]
        return all(node.state == states[node.node_id] for node in nodes)

    return holds


# As far as HELD comes by itself.
WAITS = stands(echo=execution_pb2.NODE_STATE_SUCCEEDED, make=execution_pb2.NODE_STATE_SUCCEEDED, hold=RUNS)


async def comes(one, run, agents, condition, node):
    """Wait until it is in the store that a run stands so, and until one of its agents works."""
    await until(one, run, condition)
    await agents.until(lambda: agents.tries.get((run, node)) == [1])


@asynccontextmanager
async def orphaned(one, settings, source, agents, condition=WAITS, node="hold"):
    """Start a run in a process that is killed when the run stands so and the agent of a node works; yield its id."""
    async with orchestrator_process(settings) as (process, address), connect(address) as channel:
        run = (await FlowClient(channel).start(source)).execution_id
        await comes(one, run, agents, condition, node)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await lapse(settings, run)
        yield run


def no_gap(events):
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(of_kind(events, "execution_finished")) == 1
    return events


async def test_a_run_goes_on_elsewhere_and_no_finished_node_runs_again(own, agents, release) -> None:
    async with orchestrating(own()) as one, orchestrating(own()) as two:
        async with orphaned(one, own(), HELD, agents) as run:
            watches = [asyncio.ensure_future(all_of(replica.flows.watch(run))) for replica in (one, two)]
            async with asyncio.timeout(15):
                await agents.until(lambda: agents.tries[run, "hold"] == [1, 2])
                release.set()
                first, second = await asyncio.gather(*watches)
        assert first == second == no_gap(first)
        assert [agents.tries[run, node] for node in ("echo", "make", "hold", "count")] == [[1], [1], [1, 2], [1]]
        assert (started(first, "echo"), started(first, "hold")) == ([1], [1, 2])
        (taken,) = of_kind(first, "execution_taken_over")
        assert taken.execution_taken_over.takeover == 1
        (count,) = [event for event in of_kind(first, "node_output") if event.node_id == "count"]
        assert count.node_output.value.number == 40
        execution = await one.flows.get(run)
        assert (execution.state, execution.takeovers) == (SUCCEEDED, 1)
        assert {node.state for node in execution.nodes} == {execution_pb2.NODE_STATE_SUCCEEDED}


async def test_what_failed_stays_so(own, agents, release) -> None:
    source = flow(
        "bad test.failing", "after test.echo", "later test.echo", "hold test.slow", "fine test.echo",
        edges="bad.text>after.text after.text>later.text hold.text>fine.text",
    )  # fmt: skip
    async with orchestrating(own()) as one:
        failed, skipped = execution_pb2.NODE_STATE_FAILED, execution_pb2.NODE_STATE_SKIPPED
        condition = stands(bad=failed, after=skipped, later=skipped, hold=RUNS)
        async with orphaned(one, own(), source, agents, condition) as run:
            await agents.until(lambda: agents.tries[run, "hold"] == [1, 2])
            release.set()
            events = no_gap(await all_of(one.flows.watch(run)))
        last = events[-1].execution_finished
        assert (last.state, last.error.message) == (FAILED, "The node `bad` failed: The model said no.")
        assert len(of_kind(events, "node_skipped")) == 2
        assert agents.tries[run, "fine"] == [1]


async def test_streams_that_broke_off_end_with_an_error_and_new_ones_open(own, agents, release) -> None:
    source = flow("make test.producer", "count test.consumer", edges="make.stream>count.stream")
    async with AsyncExitStack() as stack:
        port, client = await stack.enter_async_context(streaming())
        changed = own(streams_address=f"127.0.0.1:{port}")
        one = await stack.enter_async_context(orchestrating(changed))
        async with orphaned(one, changed, source, agents, lambda run: run.nodes[0].streams, "make") as run:
            await agents.until(lambda: agents.tries[run, "make"] == [1, 2])
            release.set()
            events = no_gap(await all_of(one.flows.watch(run)))
        old, new = [event.stream_available.stream_id for event in of_kind(events, "stream_available")]
        assert [event.stream_complete.stream_id for event in of_kind(events, "stream_complete")] == [old, new]
        broken, whole = await all_of(client.subscribe(old)), await all_of(client.subscribe(new))
    assert broken[-1].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR
    assert broken[-1].payload.error.message == "taken over"
    assert whole[-1].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_END


async def test_a_log_that_lost_what_is_needed_ends_the_run_once_with_the_reason(own, agents, release) -> None:
    changed = own(log_max_events=16)
    async with orchestrating(changed) as one, orchestrating(changed) as two:
        async with orphaned(one, changed, HELD, agents) as run:
            async with asyncio.timeout(10):
                first, second = await asyncio.gather(*(all_of(replica.flows.watch(run)) for replica in (one, two)))
        assert first[1:] == second[1:]
        assert first[-1].execution_finished.error.message.startswith(
            "The orchestrator that ran this execution is gone, and its log has lost the events before"
        )
        assert agents.tries[run, "hold"] == [1]


async def test_a_run_is_taken_over_so_often_and_no_more(own, agents, release) -> None:
    # The one take-over that may be is the one after the kill.
    changed = own(max_takeovers=1)
    async with orchestrating(changed) as one, orphaned(one, changed, HELD, agents) as run:
        await agents.until(lambda: agents.tries[run, "hold"] == [1, 2])
    # The second orchestrator went too, and left the run.
    async with orchestrating(own(max_takeovers=1)) as last:
        events = no_gap(await all_of(last.flows.watch(run)))
    assert events[-1].execution_finished.error.message == (
        "The orchestrator that ran this execution is gone, and the run was taken over as often as may be: 1."
    )
    assert MeshError.from_status(events[-1].execution_finished.error).code is Unavailable.code


async def test_a_run_that_nobody_holds_can_be_cancelled(own, agents, release) -> None:
    async with orchestrating(own()) as one:
        async with orphaned(one, own(), HELD, agents) as run:
            cancelled = await one.flows.cancel(run)
        assert cancelled.state == CANCELLED
        no_gap(await all_of(one.flows.watch(run)))


async def test_a_caller_of_a_run_reads_on_and_leaving_it_still_cancels(own, agents, release) -> None:
    async with orchestrating(own()) as one, orchestrator_process(own()) as (process, address):
        port = int(address.split(":")[1])
        async with connect(address) as channel, aclosing(FlowClient(channel).run(HELD)) as events:
            seen = [await anext(events)]
            run = seen[0].execution_id
            await comes(one, run, agents, WAITS, "hold")
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await lapse(own(), run)
            # Its address has a second life, as it has behind a proxy.
            async with orchestrating(own(port=port)):
                while not seen[-1].HasField("execution_taken_over"):
                    seen.append(await anext(events))
                assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
                await agents.until(lambda: agents.tries[run, "hold"] == [1, 2])
                await events.aclose()
                assert (await one.flows.get(run)).state == CANCELLED
        await agents.until(lambda: agents.running[run] == 0)


async def test_an_orchestrator_that_was_away_for_a_while_says_nothing_more(own, agents, release) -> None:
    async with (
        orchestrating(own()) as one,
        # It finds out that it lost its run when it renews its lease, at every third of it.
        orchestrator_process(own(lease_seconds=6)) as (process, address),
        connect(address) as channel,
    ):
        run = (await FlowClient(channel).start(HELD)).execution_id
        await comes(one, run, agents, WAITS, "hold")
        process.send_signal(signal.SIGSTOP)
        try:
            await lapse(own(), run)
            await agents.until(lambda: agents.tries[run, "hold"] == [1, 2])
        finally:
            process.send_signal(signal.SIGCONT)
        # What the one that was away still runs it gives up; only the other's is left.
        await agents.until(lambda: agents.running[run] == 1)
        release.set()
        events = no_gap(await all_of(one.flows.watch(run)))
        assert events == await all_of(FlowClient(channel).watch(run))
    assert events[-1].execution_finished.state == SUCCEEDED
    assert agents.tries[run, "count"] == [1]
