"""Watching a run from anywhere, from any position, through deaths of replicas."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, aclosing

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.api.flow.v1.flow_edge_service_pb2_grpc import FlowEdgeServiceStub
from mediamesh.api.flow.v1.flow_service_pb2 import WatchExecutionRequest
from mediamesh.api.flow.v1.flow_service_pb2_grpc import FlowServiceStub
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.wire.errors import InvalidRequest, NotFound, OutOfRange, Unavailable
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow
from tests.pace import within

SLOW = flow("wait test.slow", "show ui.stream-console", edges="wait.text>show.input")
MANY = flow("make test.producer, params: {count: 700}", "show ui.stream-console", edges="make.stream>show.input")


@pytest.fixture(scope="session")
async def twin(settings):
    """Return a second orchestrator over the same Valkey."""
    async with orchestrating(settings()) as running:
        yield running


async def all_of(events):
    return [event async for event in events]


@pytest.mark.stack
async def test_a_watch_from_any_position_has_what_follows_and_nothing_else(mesh, twin) -> None:
    events = await all_of(mesh.flows.run(MANY))
    run, newest = events[0].execution_id, events[-1].sequence
    assert newest > 1400
    for replica in (mesh, twin):
        for after in (0, 1, newest // 2, newest - 1, newest):
            assert await all_of(replica.flows.watch(run, after)) == events[after:]


async def test_a_position_in_the_future_and_an_unknown_run_are_refused(mesh, twin) -> None:
    events = await all_of(mesh.flows.run(flow("a test.flaky")))
    for replica in (mesh, twin):
        with pytest.raises(OutOfRange) as raised:
            await all_of(replica.flows.watch(events[0].execution_id, 99))
        assert raised.value.metadata["newest"] == str(events[-1].sequence)
        with pytest.raises(NotFound):
            await all_of(replica.flows.watch("nobody"))
        with pytest.raises(NotFound):
            await replica.flows.get("nobody")


async def test_another_replica_tells_a_run_live(mesh, twin, release) -> None:
    execution = await mesh.flows.start(SLOW)
    event = ExecutionEvent()
    async with asyncio.timeout(5), aclosing(twin.flows.watch(execution.execution_id)) as events:
        async for event in events:
            if event.HasField("node_progress"):
                break
        # What follows does not exist yet: it can only come through the log.
        release.set()
        rest = await all_of(events)
    assert rest[0].sequence == event.sequence + 1
    assert rest[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    assert (await twin.flows.get(execution.execution_id)) == (await mesh.flows.get(execution.execution_id))


async def test_another_replica_cancels_a_run_within_a_second(mesh, twin, agents, release) -> None:
    execution = await mesh.flows.start(SLOW)
    await agents.until(lambda: agents.running[execution.execution_id] == 1)
    async with within(1):
        cancelled = await twin.flows.cancel(execution.execution_id)
        await agents.until(lambda: agents.cancelled[execution.execution_id] == 1)
    assert cancelled.state == execution_pb2.EXECUTION_STATE_CANCELLED


async def test_runs_are_listed_by_page_and_workspace_from_any_replica(mesh, twin) -> None:
    workspace = "listed"
    started = [await mesh.flows.start(flow("a test.flaky"), workspace_id=workspace) for _ in range(5)]
    ids, token = [], ""
    while True:
        page = await twin.flows.list(workspace_id=workspace, page_size=2, page_token=token)
        ids += [execution.execution_id for execution in page.executions]
        if not (token := page.next_page_token):
            break
    assert ids == sorted((execution.execution_id for execution in started), reverse=True)


async def test_a_log_that_was_cut_says_what_is_lost(settings) -> None:
    async with orchestrating(settings(log_max_events=50)) as mesh:
        execution = (await all_of(mesh.flows.run(MANY)))[0]
        gap, *events = await all_of(mesh.flows.watch(execution.execution_id))
    assert gap.gap.first_sequence == 1
    assert gap.gap.last_sequence == events[0].sequence - 1
    assert len(events) == 50


async def test_server_sent_events_have_ids_and_an_end_and_resume(mesh) -> None:
    run = (await all_of(mesh.flows.run(flow("a test.flaky"))))[0].execution_id
    stub = FlowEdgeServiceStub(mesh.channel)

    async def frames(*metadata):
        request = WatchExecutionRequest(execution_id=run)
        return [body.data.decode() async for body in stub.WatchExecutionSse(request, metadata=metadata)]

    retry, first, *_, last, done = await frames()
    assert retry == "retry: 1000\n\n"
    name, kind, data = first.rstrip("\n").split("\n")
    assert (name, kind) == ("id: 1", "event: execution_started")
    assert json.loads(data.removeprefix("data: "))["executionId"] == run
    assert "event: execution_finished" in last
    assert done == "event: done\ndata: {}\n\n"
    assert (await frames(("last-event-id", "3")))[1].startswith("id: 4\n")
    for bad in ("x", "-1", "9" * 30):
        with pytest.raises(InvalidRequest, match="last-event-id"):
            await frames(("last-event-id", bad))


async def test_a_silent_run_sends_comments_to_browsers(settings, release) -> None:
    async with orchestrating(settings(heartbeat_seconds=0.02)) as mesh:
        execution = await mesh.flows.start(SLOW)
        call = FlowEdgeServiceStub(mesh.channel).WatchExecutionSse(
            WatchExecutionRequest(execution_id=execution.execution_id)
        )
        body = HttpBody()
        async for body in call:
            if body.data == b": heartbeat 3\n\n":  # one that came before all was said tells of less
                break
        assert body.data == b": heartbeat 3\n\n"
        await mesh.flows.cancel(execution.execution_id)


async def test_a_server_that_goes_away_says_so_and_another_goes_on(settings, mesh, agents, release) -> None:
    async with AsyncExitStack() as stack:
        async with orchestrating(settings(grace_seconds=1)) as leaving:
            channel = await stack.enter_async_context(connect(leaving.address))
            execution = await leaving.flows.start(SLOW)
            await agents.until(lambda: agents.running[execution.execution_id] == 1)
            request = WatchExecutionRequest(execution_id=execution.execution_id)
            events = aiter(FlowServiceStub(channel).WatchExecution(request))
            assert (await anext(events)).event.sequence == 1
        rest = await all_of(events)
    assert rest[-1].event.go_away.resume_token == str(rest[-2].event.sequence)
    release.set()
    last = (await all_of(mesh.flows.watch(execution.execution_id)))[-1]
    assert last.execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED


async def test_a_server_whose_log_goes_with_it_ends_its_runs_with_a_reason(settings, release) -> None:
    async with AsyncExitStack() as stack:
        async with orchestrating(settings(valkey_url="memory", grace_seconds=1)) as leaving:
            events = FlowClient(await stack.enter_async_context(connect(leaving.address))).run(SLOW)
            assert (await anext(events)).sequence == 1
        last = (await all_of(events))[-1].execution_finished
    assert last.state == execution_pb2.EXECUTION_STATE_FAILED
    assert last.error.message == "The server is going away."


async def test_a_client_reads_on_by_itself_when_its_server_dies(mesh, settings, release) -> None:
    """The second life of the address is another replica of the same log."""
    execution = await mesh.flows.start(SLOW)
    run, seen = execution.execution_id, list[ExecutionEvent]()
    async with orchestrating(settings()) as first:
        port = int(first.address.split(":")[1])
        channel = connect(first.address)
        events = FlowClient(channel).watch(run)
        while not seen or not seen[-1].HasField("node_progress"):
            seen.append(await anext(events))
    async with channel, orchestrating(settings(port=port)):
        release.set()
        seen += await all_of(events)
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED


async def test_a_client_does_not_wait_for_ever(settings) -> None:
    async with connect("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable):
            await all_of(FlowClient(channel).watch("nobody", patience=0.2))


async def test_a_flow_for_a_server_that_is_down_is_told_to_come_again(settings, release) -> None:
    async with orchestrating(settings(agent_addresses=["127.0.0.1:1"])) as mesh:
        source = flow("a test.flaky")
        (issue,) = (await mesh.flows.validate(source)).issues
        assert issue.message.startswith(
            "No agent `test.flaky` is known. The agent server at 127.0.0.1:1 cannot be reached:"
        )
        with pytest.raises(Unavailable, match=r"The agent server at .* cannot be reached"):
            await mesh.flows.start(source)


async def test_a_run_log_that_is_gone_is_said_so(settings) -> None:
    async with orchestrating(settings(valkey_url="redis://127.0.0.1:1/0")) as mesh:
        with pytest.raises(Unavailable, match="The log of runs"):
            await mesh.flows.start(flow("a test.flaky"))
        with pytest.raises(Unavailable) as raised:
            await mesh.flows.get("nobody")
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
