"""Whatever agents do, a run ends once, with a reason that names the node and the cause."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import psutil
import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.client.channel import connect
from mediamesh.client.flows import FlowClient
from mediamesh.stack.ports import free_ports
from mediamesh.wire.errors import AgentFailed, DeadlineExceeded, MeshError, Unavailable
from tests.orchestrator.bad_agents import DIE_AFTER, BadAgents, agents_process, serving_bad_agents
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow
from tests.orchestrator.processes import orchestrator_process
from tests.pace import within

pytestmark = pytest.mark.stack

SUCCEEDED, FAILED = execution_pb2.EXECUTION_STATE_SUCCEEDED, execution_pb2.EXECUTION_STATE_FAILED
MIB = 1 << 20
WELL = flow("good bad.maker")
# 64 chunks on the pin, twice as many where it is read, and what gRPC takes ahead and has to send.
MOST_UNREAD = 3 * 64 + 2 * (256 + 64) + 16


@pytest.fixture(scope="module")
async def bad():
    return BadAgents()


@pytest.fixture(scope="module")
async def bad_address(bad):
    async with serving_bad_agents(bad) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
async def with_bad(settings, bad_address):
    """Return an orchestrator whose agents are bad."""
    async with orchestrating(settings(agent_addresses=[bad_address])) as running:
        yield running


async def events_of(flows, source, **options):
    """Run to the end; return the events, of which one is the end."""
    async with asyncio.timeout(30):
        events = [event async for event in flows.run(source, **options)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.sequence for event in events if event.HasField("execution_finished")] == [len(events)]
    return events


def error_of(events, node_id):
    """Return why a node failed, which is what the run says too where it is the first."""
    (failed,) = [event.node_failed for event in events if event.HasField("node_failed") and event.node_id == node_id]
    return MeshError.from_status(failed.error)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("gap", "The agent streamed chunk 3 on `stream` where 2 is next."),
        ("after-end", "The agent streamed on `stream` after its end."),
        ("type", "The agent gave a value that does not fit: `text` takes string, got number."),
        ("nothing", "The agent gave nothing as a value on `text`."),
        ("half-media", "The agent finished in the middle of the media on `image`."),
        (
            "moved-media",
            "The agent's media on `image` goes on at byte 1 where 3 is next, or after its end, or as another type.",
        ),
        ("silent", "The agent ended without saying that it finished."),
        ("frame", "The agent sent a frame that is not of the contract."),
    ],
)
async def test_what_is_not_of_the_contract_fails_the_node_wherever_it_is(with_bad, how, text) -> None:
    """Alone, in a flow within the flow, and for an element of a list."""
    source = flow(f"a bad.maker, params: {{how: {how}}}")
    inner = flow("in, flow: inner.mlab")
    inner.files.add(name="inner.mlab", yaml=source.yaml)
    each = flow(
        "all bad.lister, outputs: {list: [1, 2]}",
        f"a bad.maker, forEach: {{pin: number, parallel: 1}}, params: {{how: {how}}}",
        edges="all.list>a.number",
    )
    for node_id, run, begin in (("a", source, ""), ("in.a", inner, ""), ("a", each, "Element 0: ")):
        events = await events_of(with_bad.flows, run)
        error = error_of(events, node_id)
        assert isinstance(error, AgentFailed)
        assert error.text == begin + text
        assert events[-1].execution_finished.error.message == f"The node `{node_id}` failed: {begin}{text}"


async def test_a_slow_agent_fails_at_its_time_and_so_does_who_reads_it_and_nobody_else(with_bad) -> None:
    events: list[ExecutionEvent] = []
    seconds = 0.3
    while not any(event.HasField("node_started") and event.node_id == "count" for event in events):
        seconds *= 2  # its time may be over before it gives anything
        source = flow(
            f"slow bad.maker, timeout: {seconds}, params: {{how: drip}}", "count bad.eater", "well bad.maker",
            edges="slow.stream>count.stream",
        )  # fmt: skip
        events = await events_of(with_bad.flows, source)
    error, text = error_of(events, "slow"), f"The node took longer than its {seconds} s."
    assert isinstance(error, DeadlineExceeded)
    assert error.text == text
    assert error_of(events, "count").text == "The stream broke off, as the node `slow` failed."
    assert events[-1].execution_finished.error.message == f"The node `slow` failed: {text}"
    assert "well" in {event.node_id for event in events if event.HasField("node_finished")}


@pytest.mark.parametrize("how", ["flood", "flood-large", "flood-progress"])
@pytest.mark.parametrize("reader", ["bad.eater, timeout: 2, params: {how: never}", "ui.stream-console", ""])
async def test_a_flood_fills_no_memory_and_ends_with_its_node(
    settings, bad, bad_address, how, reader, record_property
) -> None:
    """Whether its reader reads nothing, shows all of it, or is nobody."""
    own = settings(agent_addresses=[bad_address], log_max_bytes=8 * MIB, streams_address="")
    source = flow(
        f"flood bad.maker, timeout: 1, params: {{how: {how}}}",
        *([f"reader {reader}"] if reader else []),
        edges=f"flood.stream>reader.{'input' if reader.startswith('ui') else 'stream'}" if reader else "",
    )
    bad.made = 0
    async with orchestrator_process(own) as (process, address), connect(address) as channel:
        flows, orchestrator = FlowClient(channel), psutil.Process(process.pid)
        await events_of(flows, WELL)
        before = orchestrator.memory_info().rss
        run = (await flows.start(source)).execution_id
        most = 0
        while (execution := await flows.get(run)).state not in {SUCCEEDED, FAILED}:
            most = max(most, orchestrator.memory_info().rss - before)
            await asyncio.sleep(0.05)  # samples its memory
        record_property("mebibytes", most / MIB)
        assert execution.state == FAILED
        assert execution.error.message == "The node `flood` failed: The node took longer than its 1 s."
        assert most < 64 * MIB
        # Nobody reads: what was made fits what may wait on the way.
        assert "never" not in reader or bad.made < MOST_UNREAD
        await events_of(flows, WELL)


async def test_an_agent_that_is_frozen_holds_up_nobody_but_its_node(settings) -> None:
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(agents_process(port))
        mesh = await stack.enter_async_context(orchestrating(settings(agent_addresses=[f"127.0.0.1:{port}"])))
        await events_of(mesh.flows, WELL)
        process.send_signal(signal.SIGSTOP)
        async with within(5):
            events = await events_of(mesh.flows, flow("a bad.maker, timeout: 1"))
        assert isinstance(error_of(events, "a"), DeadlineExceeded)
        assert events[-1].execution_finished.error.message == "The node `a` failed: The node took longer than its 1 s."
        process.send_signal(signal.SIGCONT)
        assert (await events_of(mesh.flows, WELL))[-1].execution_finished.state == SUCCEEDED


async def test_an_agent_that_dies_in_the_middle_of_what_it_makes_fails_its_node_and_comes_back(settings) -> None:
    """Chunks of it have gone on, so that a second try would give them twice."""
    source = flow(
        "make bad.maker, params: {how: dies}", "count bad.eater, retries: 0", edges="make.stream>count.stream"
    )
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(agents_process(port))
        # Channels reconnect within the pause.
        own = settings(agent_addresses=[f"127.0.0.1:{port}"], retry_attempts=5, retry_pause_seconds=1.2)
        mesh = await stack.enter_async_context(orchestrating(own))
        events = await events_of(mesh.flows, source)
        assert await first.wait() == -signal.SIGKILL
        error = error_of(events, "make")
        assert isinstance(error, Unavailable)
        assert error.text.startswith("The agent `bad.maker` could not run: ")
        assert events[-1].execution_finished.error.message == f"The node `make` failed: {error.text}"
        await stack.enter_async_context(agents_process(port, second_life=True))
        events = await events_of(mesh.flows, source)
        (count,) = [event for event in events if event.HasField("node_output")]
        assert count.node_output.value.number == DIE_AFTER


async def test_an_agent_that_dies_in_the_middle_of_what_it_reads_gets_all_of_it_when_it_is_back(settings) -> None:
    source = flow(
        "make test.producer, params: {count: 40}",
        "count bad.eater, params: {how: dies}, retries: {max: 20, maxBackoff: 2}",
        edges="make.stream>count.stream",
    )  # fmt: skip
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(agents_process(port))
        addresses = [*settings().agent_addresses, f"127.0.0.1:{port}"]
        mesh = await stack.enter_async_context(
            orchestrating(settings(agent_addresses=addresses, retry_pause_seconds=0.5))
        )
        run = asyncio.ensure_future(events_of(mesh.flows, source))
        assert await first.wait() == -signal.SIGKILL
        await stack.enter_async_context(agents_process(port, second_life=True))
        events = await run
    assert events[-1].execution_finished.state == SUCCEEDED
    (count,) = [event for event in events if event.HasField("node_output") and event.node_id == "count"]
    assert count.node_output.value.number == 40
    retries = [event.node_retry.error.message for event in events if event.HasField("node_retry")]
    assert retries
