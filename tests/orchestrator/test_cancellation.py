"""Runs that are cancelled leave nothing behind, and what that saved and wasted is counted."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from redis import asyncio as redis

from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.api.flow.v1.execution_pb2 import Execution, NodeExecution
from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.orchestrator.cancellation import CancelledNode, Durations, account, cancelled_nodes
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow
from tests.orchestrator.test_broadcast import streaming

CANCELLED, SUCCEEDED = execution_pb2.EXECUTION_STATE_CANCELLED, execution_pb2.EXECUTION_STATE_SUCCEEDED
RUNS = 100
MIXED = flow(
    "text test.echo, outputs: {text: hello}",
    "echo test.echo",
    "make test.producer",
    "count test.consumer",
    "lost test.lost, retries: {max: 9, initialBackoff: 0.2}",
    "hold test.slow",
    "show ui.stream-console",
    edges="text.text>echo.text make.stream>count.stream echo.text>hold.text make.stream>show.input",
)


def node(state, *, began=None, ended=0):
    made = NodeExecution(node_id="a", state=state)
    if began is not None:
        made.start_time.FromSeconds(began)
    made.end_time.FromSeconds(ended)
    return made


def execution(*nodes):
    agents = [flow_pb2.FlowNode(id=str(number), type="t.t") for number in range(len(nodes))]
    return Execution(flow=flow_pb2.Flow(nodes=agents), nodes=nodes)


def test_what_had_begun_is_wasted_and_what_is_left_of_it_is_saved() -> None:
    durations = Durations()
    account(execution(node(execution_pb2.NODE_STATE_SUCCEEDED, began=10, ended=20)), durations)
    cancelled = execution_pb2.NODE_STATE_CANCELLED
    stopped = execution(
        node(cancelled, began=10, ended=13), node(cancelled, ended=13), node(cancelled, began=0, ended=13)
    )
    assert list(cancelled_nodes(stopped, durations)) == [
        CancelledNode("t.t", began=True, wasted_seconds=3, saved_seconds=7),
        CancelledNode("t.t", began=False, wasted_seconds=0, saved_seconds=10),
        CancelledNode("t.t", began=True, wasted_seconds=13, saved_seconds=0),
    ]
    account(stopped, durations)


def test_of_an_agent_that_nobody_knows_nothing_is_saved() -> None:
    assert Durations().left("t.t", 0) == 0


def test_the_mean_of_an_agent_follows_what_it_takes() -> None:
    durations = Durations()
    for seconds in (1.0, *([3.0] * 100)):
        durations.learn("t.t", seconds)
    assert 2.9 < durations.left("t.t", 0) <= 3


@pytest.mark.stack
async def test_100_runs_cancelled_at_random_moments_leave_nothing_behind(settings, valkey_url, agents, release) -> None:
    """Neither a task, nor a run at an agent, nor a stream that is open, nor a key without an end."""
    url = valkey_url.removesuffix("/0") + "/8"
    async with AsyncExitStack() as stack:
        port, streams = await stack.enter_async_context(streaming())
        changed = settings(valkey_url=url, streams_address=f"127.0.0.1:{port}")
        mesh = await stack.enter_async_context(orchestrating(changed))
        before = asyncio.all_tasks()
        ids = await asyncio.gather(*(one_run(mesh, random.Random(number)) for number in range(RUNS)))
        async with asyncio.timeout(60):
            await agents.until(lambda: not any(agents.running[run] for run in ids))
            while left := {task for task in asyncio.all_tasks() - before if not is_of_a_server(task)}:
                await asyncio.wait(left, timeout=0.1)
        pages = [await mesh.flows.get(run) for run in ids]
        found = (await streams.list(page_size=1000)).streams
        keys = await keys_of(url)
    assert {run.state for run in pages} == {CANCELLED}
    assert all(stream.complete for run in pages for node in run.nodes for stream in node.streams)
    assert found
    assert not [one for one in found if one.state == stream_pb2.STREAM_STATE_LIVE]
    assert not [key for key, _ in keys if key.endswith(":lease") or key == "mm:runs:open"]
    assert all(ttl > 0 for _, ttl in keys)


async def cancelled_run(mesh, chance):
    run = (await mesh.flows.start(MIXED)).execution_id
    await asyncio.sleep(chance.random() * 0.5)
    await mesh.flows.cancel(run)
    return run


async def one_run(mesh, chance):
    if chance.random() < 0.5:
        return await cancelled_run(mesh, chance)
    run = ""
    try:
        async with asyncio.timeout(0.05 + chance.random() * 0.5):
            async for event in mesh.flows.run(MIXED):
                run = event.execution_id
    except TimeoutError:
        pass
    if not run:  # where the machine is slow it would never begin in time
        return await cancelled_run(mesh, chance)
    async for _ in mesh.flows.watch(run):
        pass
    return run


def is_of_a_server(task):
    """Return whether a task waits for the next call of a method, or is this one."""
    return task is asyncio.current_task() or "_request_registered_call" in repr(task)


async def keys_of(url):
    client = redis.Redis.from_url(url, protocol=2)
    try:
        return [(key.decode(), await client.pttl(key)) async for key in client.scan_iter()]
    finally:
        await client.aclose()
