"""A run with conditions, lists and flows within flows is taken over after any of its events."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.api.flow.v1 import execution_pb2 as pb
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.cut_runs import cut_after, opened
from tests.orchestrator.flow_texts import flow

pytestmark = pytest.mark.stack

SUCCEEDED, FAILED = pb.EXECUTION_STATE_SUCCEEDED, pb.EXECUTION_STATE_FAILED
ENDS = {"node_finished", "node_failed", "node_skipped", "node_cancelled"}
INNER = flow(
    "u ui.file-upload", "ask test.echo, params: {suffix: '?'}", "out ui.stream-console",
    edges="u.file>ask.text ask.text>out.input",
)  # fmt: skip
WHEN = {
    "first.text>long.text": "len(value) > 3",
    "first.text>short.text": "len(value) <= 3",
    "make.stream>count.stream": "first.text == 'hello'",
    "make.stream>never.stream": "first.text == 'bye'",
}
SHAPES = flow(
    "text test.echo, outputs: {text: hello}",
    "first test.echo",
    "long test.echo, params: {suffix: ', long'}",
    "short test.echo, params: {suffix: ', short'}",
    "end test.echo",
    "in, flow: inner.mlab",
    "all test.list, outputs: {list: [one, two, three]}",
    "each test.picky, forEach: {pin: text, parallel: 1}",
    "make test.producer, params: {count: 5}",
    "count test.consumer",
    "never test.consumer",
    "show ui.stream-console",
    edges=f"text.text>first.text {' '.join(WHEN)} long.text>end.text short.text>end.text end.text>in.u "
    "all.list>each.text in.out>show.input",
    when=WHEN,
)
SHAPES.files.add(name="inner.mlab", yaml=INNER.yaml)


@pytest.fixture(scope="module")
def own(settings, valkey_url):
    """Return settings for a log of our own: no other test takes runs over there."""
    return settings(valkey_url=valkey_url.removesuffix("/0") + "/9", lease_seconds=1.5)


@pytest.fixture(scope="module")
async def replica(own):
    async with orchestrating(own) as running:
        yield running


@pytest.fixture(scope="module")
async def store(own):
    async with opened(own) as opened_store:
        yield opened_store


async def whole_run(mesh, source):
    events = [event async for event in mesh.flows.run(source, timeout=20)]
    return await mesh.flows.get(events[0].execution_id), events


def outcomes(execution):
    """Return how each node ended and what it gave."""
    return {
        node.node_id: (
            pb.NodeState.Name(node.state),
            node.skipped.cause_node_id,
            {pin: value.SerializeToString(deterministic=True) for pin, value in node.outputs.items()},
        )
        for node in execution.nodes
    }


def ended(events):
    return {event.node_id for event in events if event.WhichOneof("event") in ENDS}


async def taken_over(mesh, store, whole, events, length):
    """Cut a run after some of its events and see it taken over; return it with all of its events."""
    run = await cut_after(store, whole, events[:length])
    async with asyncio.timeout(30):
        seen = [event async for event in mesh.flows.watch(run) if event.sequence]
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert [event.WhichOneof("event") for event in seen[:length]] == [e.WhichOneof("event") for e in events[:length]]
    assert seen[length].HasField("execution_taken_over")
    assert [at for at, event in enumerate(seen) if event.HasField("execution_finished")] == [len(seen) - 1]
    ends = [event.node_id for event in seen if event.WhichOneof("event") in ENDS]
    assert sorted(ends) == sorted({node.node_id for node in whole.nodes}), length
    return await mesh.flows.get(run), seen


async def test_wherever_a_run_breaks_off_it_ends_as_if_it_had_not(replica, store, agents) -> None:
    whole, events = await whole_run(replica, SHAPES)
    assert whole.state == SUCCEEDED
    assert outcomes(whole)["short"][0] == "NODE_STATE_SKIPPED"
    assert outcomes(whole)["never"][0] == "NODE_STATE_SKIPPED"

    async def holds(length):
        execution, seen = await taken_over(replica, store, whole, events, length)
        assert execution.state == SUCCEEDED, (length, execution.error.message)
        assert outcomes(execution) == outcomes(whole), length
        before = ended(events[:length])
        again = {event.node_id for event in seen[length:] if event.HasField("node_started")}
        assert not again & before, length
        # None of what the agents saw of this run was asked of them before it broke off.
        assert not {node for run, node in agents.tries if run == execution.execution_id} & before, length
        # An agent is told of each element too whether it may have been asked before.
        attempt = 2 if any(e.node_id == "each" and e.HasField("node_started") for e in events[:length]) else 1
        assert agents.tries.get((execution.execution_id, "each"), []) == ([] if "each" in before else [attempt] * 3)

    async with asyncio.TaskGroup() as tasks:
        for length in range(1, len(events)):
            tasks.create_task(holds(length))


async def test_what_a_node_said_before_it_was_run_again_stays_and_so_do_the_decisions(replica, store) -> None:
    """The agent says something else when it is asked again, and half of its run has acted on what it said at first."""
    source = flow(
        "first test.moody", "long test.echo, params: {suffix: ', long'}",
        "short test.echo, params: {suffix: ', short'}", "end test.echo", "echo test.echo",
        edges="first.text>long.text first.text>short.text long.text>end.text short.text>end.text first.text>echo.text",
        when={"first.text>long.text": "len(value) > 3", "first.text>short.text": "len(value) <= 3"},
    )  # fmt: skip
    whole, events = await whole_run(replica, source)
    at = {event.WhichOneof("event"): number for number, event in enumerate(events) if event.node_id == "first"}
    assert at["node_finished"] - at["node_output"] > 3

    async def holds(length):
        execution, _ = await taken_over(replica, store, whole, events, length)
        assert execution.state == SUCCEEDED, length
        ends = {node.node_id: node for node in execution.nodes}
        unsaid = at["node_started"] < length <= at["node_output"]
        word, way, other = ("hi", "short", "long") if unsaid else ("hello", "long", "short")
        assert ends["first"].outputs["text"].text == ends["echo"].outputs["text"].text == word, length
        assert ends["end"].outputs["text"].text == f"{word}, {way}", length
        assert ends[other].skipped.by_condition, length

    async with asyncio.TaskGroup() as tasks:
        for length in range(1, len(events)):
            tasks.create_task(holds(length))


async def test_what_failed_or_was_left_out_stays_so_wherever_the_run_breaks_off(replica, store) -> None:
    source = flow(
        "text test.echo, outputs: {text: hello}", "bad test.failing", "after test.echo", "later test.echo",
        "all test.list, outputs: {list: [one, bad two, three]}", "kept test.picky, forEach: {pin: text, onError: keep}",
        "dropped test.picky, forEach: {pin: text, onError: drop}",
        "strict test.picky, forEach: {pin: text, parallel: 1}",
        "in, flow: inner.mlab", "fine test.join",
        edges="text.text>bad.text bad.text>after.text text.text>later.text all.list>kept.text all.list>dropped.text "
        "all.list>strict.text after.text>in.u text.text>fine.a kept.text>fine.b",
        when={"text.text>later.text": "after.text == 'whole'", "after.text>in.u": "len(strict.text) > 0"},
    )  # fmt: skip
    source.files.add(name="inner.mlab", yaml=INNER.yaml)
    whole, events = await whole_run(replica, source)
    assert whole.state == FAILED
    assert {node.node_id for node in whole.nodes if node.state == pb.NODE_STATE_FAILED} == {"bad", "strict"}

    async def holds(length):
        execution, _ = await taken_over(replica, store, whole, events, length)
        assert (execution.state, execution.error.message) == (FAILED, whole.error.message), length
        assert outcomes(execution) == outcomes(whole), length

    async with asyncio.TaskGroup() as tasks:
        for length in range(1, len(events)):
            tasks.create_task(holds(length))
