from __future__ import annotations

import asyncio
import random

import pytest

from mediamesh.api.flow.v1 import execution_pb2 as pb
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.expansion import expanded
from tests.orchestrator.fake_agents import MANIFESTS
from tests.orchestrator.flow_texts import flow

AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}
TEXT = "text test.echo, outputs: {text: hello}"


def issues(source):
    draft = expanded(source, max_nodes=100)
    check_flow(draft, AGENTS)
    return [
        (
            flow_pb2.FlowIssueCode.Name(issue.code).removeprefix("FLOW_ISSUE_CODE_"),
            issue.line,
            issue.column,
            issue.message,
        )
        for issue in draft.in_order()
    ]


def echoes(condition, *more, edge="text.text>a.text"):
    return flow(TEXT, "a test.echo", *more, edges=edge, when={edge: condition})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (echoes("value == 'hello'"), []),
        (echoes("text.text in ['hello'] and len(value) > 2"), []),
        (echoes("value =="), [("INVALID_CONDITION", 9, 52, "The condition goes wrong at its end.")]),
        (
            echoes("tekst.text == 'x'"),
            [("UNKNOWN_NODE", 9, 43, "There is no node `tekst`. Did you mean `text`?")],
        ),
        (
            echoes("text.tekst == 'x'"),
            [("UNKNOWN_PIN", 9, 43, "`text` has no output pin `tekst`. Did you mean `text`?")],
        ),
        (
            echoes("value"),
            [("INVALID_CONDITION", 9, 43,
              "The condition is string, neither true nor false: compare it with something.")],
        ),
        (
            echoes("3 < value"),
            [("INVALID_CONDITION", 9, 43, "`text.text` is string, and can never be compared with 3.")],
        ),
        (
            echoes("p.stream == 3", "p test.producer"),
            [("INVALID_CONDITION", 10, 43, "A condition cannot look at `p.stream`, which is stream.")],
        ),
        (
            flow(TEXT, "a test.echo", "b test.echo", edges="text.text>a.text a.text>b.text",
                 when={"text.text>a.text": "b.text == 'x'"}),
            [("CYCLE", 10, 29, "These nodes wait for each other: `a` → `b` → `a`.")],
        ),
        (
            flow("p test.producer", "c test.consumer", edges="p.stream>c.stream",
                 when={"p.stream>c.stream": "p.text == 'x'"}),
            [("INVALID_CONDITION", 9, 44,
              "`p.text` comes from what waits until this stream is read: let the condition look at something else.")],
        ),
        (
            flow(TEXT, "a test.echo", "b test.echo", edges="text.text>a.text a.text>b.text text.text>b.text",
                 when={"text.text>a.text": "value == 'x'", "text.text>b.text": "value != 'x'"}),
            [],
        ),
        (
            flow(TEXT, "b test.echo", "o test.echo, outputs: {text: x}", edges="text.text>b.text o.text>b.text",
                 when={"text.text>b.text": "value == 'x'"}),
            [("MULTIPLE_EDGES", 11, 26, "`b.text` takes one value, and the edge in line 10 feeds it already.")],
        ),
    ],
)  # fmt: skip
def test_conditions_are_checked_before_anything_runs(source, expected) -> None:
    assert issues(source) == expected


async def ended(mesh, source, inputs=None):
    """Run to the end; return the state, the states of the nodes, and their outputs."""
    nodes, outputs, skipped = {}, {}, {}
    async for event in mesh.flows.run(source, inputs or {}, timeout=20):
        kind = event.WhichOneof("event")
        if kind == "node_output":
            outputs[event.node_id, event.node_output.pin] = event.node_output.value.text
        if kind in {"node_finished", "node_failed", "node_skipped"}:
            nodes[event.node_id] = kind.removeprefix("node_")
        if kind == "node_skipped":
            skipped[event.node_id] = (event.node_skipped.cause_node_id, event.node_skipped.by_condition)
        if kind == "execution_finished":
            return event.execution_finished, nodes, outputs, skipped
    raise AssertionError


async def test_an_edge_whose_condition_is_so_carries(mesh) -> None:
    finished, _, outputs, _ = await ended(mesh, echoes("value == 'hello' and len(text.text) == 5"))
    assert finished.state == pb.EXECUTION_STATE_SUCCEEDED
    assert outputs["a", "text"] == "hello"


async def test_what_a_condition_keeps_back_is_skipped_with_all_behind_it_and_the_run_succeeds(mesh) -> None:
    source = flow(
        TEXT, "a test.echo", "b test.echo", "c test.echo, params: {suffix: '!'}",
        edges="text.text>a.text a.text>b.text text.text>c.text", when={"text.text>a.text": "value == 'bye'"},
    )  # fmt: skip
    finished, nodes, outputs, skipped = await ended(mesh, source)
    assert finished.state == pb.EXECUTION_STATE_SUCCEEDED
    assert (nodes["a"], nodes["b"], nodes["c"]) == ("skipped", "skipped", "finished")
    assert skipped == {"a": ("text", True), "b": ("text", True)}
    assert outputs["c", "text"] == "hello!"


async def test_a_branch_and_its_alternative_meet_again(mesh) -> None:
    edges = {"text.text>long.text": "len(value) > 3", "text.text>short.text": "len(value) <= 3"}
    for said, expected in (("hello", "hello, long"), ("hi", "hi, short")):
        source = flow(
            f"text test.echo, outputs: {{text: {said}}}",
            "long test.echo, params: {suffix: ', long'}",
            "short test.echo, params: {suffix: ', short'}",
            "end test.echo",
            edges=f"{' '.join(edges)} long.text>end.text short.text>end.text",
            when=edges,
        )
        finished, _, outputs, _ = await ended(mesh, source)
        assert (finished.state, outputs["end", "text"]) == (pb.EXECUTION_STATE_SUCCEEDED, expected)


async def test_two_alternatives_at_once_fail_the_node_where_they_meet(mesh) -> None:
    source = flow(
        TEXT, "o test.echo, outputs: {text: x}", "end test.echo", edges="text.text>end.text o.text>end.text",
        when={"text.text>end.text": "true", "o.text>end.text": "text.text != ''"},
    )  # fmt: skip
    finished, nodes, _, _ = await ended(mesh, source)
    assert (finished.state, nodes["end"]) == (pb.EXECUTION_STATE_FAILED, "failed")
    assert "their conditions overlap" in finished.error.message


async def test_an_optional_input_that_is_kept_back_is_as_if_it_had_no_edge(mesh) -> None:
    source = flow(
        TEXT, "p test.producer, params: {count: 3}", "c test.consumer", "s ui.stream-console",
        edges="p.stream>c.stream text.text>c.text c.count>s.input", when={"text.text>c.text": "value == 'bye'"},
    )  # fmt: skip
    finished, nodes, _, _ = await ended(mesh, source)
    assert (finished.state, nodes["c"]) == (pb.EXECUTION_STATE_SUCCEEDED, "finished")


@pytest.mark.parametrize(
    ("condition", "state"), [("text.text == 'hello'", "finished"), ("text.text == 'bye'", "skipped")]
)
async def test_a_stream_waits_for_its_condition_and_then_flows_or_not(mesh, condition, state) -> None:
    source = flow(
        TEXT, "p test.producer, params: {count: 200}", "c test.consumer", edges="p.stream>c.stream",
        when={"p.stream>c.stream": condition},
    )  # fmt: skip
    finished, nodes, _, _ = await ended(mesh, source)
    assert (finished.state, nodes["p"], nodes["c"]) == (pb.EXECUTION_STATE_SUCCEEDED, "finished", state)


async def test_a_condition_on_what_failed_is_a_failure(mesh) -> None:
    source = flow(
        TEXT, "f test.failing", "a test.echo", edges="text.text>a.text", when={"text.text>a.text": "f.text == 'half'"}
    )
    finished, nodes, _, skipped = await ended(mesh, source)
    assert (finished.state, nodes["a"], skipped["a"]) == (pb.EXECUTION_STATE_FAILED, "skipped", ("f", False))


async def test_a_condition_that_comes_to_neither_true_nor_false_fails_its_node(mesh) -> None:
    source = flow(
        "n test.join, outputs: {text: x}", "j test.join", TEXT, edges="text.text>j.a n.text>j.b",
        when={"text.text>j.a": "not (len(value) > 1 and [1])"},
    )  # fmt: skip
    finished, nodes, _, _ = await ended(mesh, source)
    assert (finished.state, nodes["j"]) == (pb.EXECUTION_STATE_FAILED, "failed")
    assert "neither true nor false" in finished.error.message


async def test_conditions_hold_within_flows_and_around_them(mesh) -> None:
    inner = flow(
        "u ui.file-upload", "limit test.echo, outputs: {text: hello}", "e test.echo, params: {suffix: '?'}",
        "out ui.stream-console", edges="u.file>e.text e.text>out.input",
        when={"u.file>e.text": "value == limit.text and u.file != ''"},
    )  # fmt: skip
    source = flow(
        TEXT, "in, flow: inner.mlab", "end test.echo", edges="text.text>in.u in.out>end.text",
        when={"in.out>end.text": "in.out == 'hello?'"},
    )  # fmt: skip
    source.files.add(name="inner.mlab", yaml=inner.yaml)
    finished, _, outputs, _ = await ended(mesh, source)
    assert (finished.state, outputs.get(("end", "text"))) == (pb.EXECUTION_STATE_SUCCEEDED, "hello?")


def drawn(seed):
    """Return a random flow of branches that part and meet, and what each node gives in the end; None where nothing."""
    draw = random.Random(seed)
    gives: list[str | None] = ["x" * draw.randint(1, 4)]
    nodes = [f"n0 test.echo, outputs: {{text: {gives[0]}}}"]
    edges, when = [], {}
    for number in range(1, 12):
        suffix, looked_at, limit = "y" * draw.randint(0, 2), draw.randrange(number), draw.randint(0, 6)
        so = len(gives[looked_at] or "") < limit
        condition = f"len(n{looked_at}.text) < {limit}"
        ways = draw.sample(range(number), min(number, draw.randint(1, 2)))
        chosen = ways[0] if so else ways[1] if len(ways) > 1 else None
        for way, text in zip(ways, (condition, f"not ({condition})"), strict=False):
            edges.append(f"n{way}.text>n{number}.text")
            when[edges[-1]] = text
        came = gives[chosen] if chosen is not None else None
        gives.append(None if came is None else came + suffix)
        nodes.append(f"n{number} test.echo, params: {{suffix: '{suffix}'}}")
    return flow(*nodes, edges=" ".join(edges), when=when), gives


async def test_whatever_the_branches_every_node_gives_what_the_conditions_say(mesh) -> None:
    async def holds(seed):
        source, gives = drawn(seed)
        finished, nodes, outputs, _ = await ended(mesh, source)
        assert finished.state == pb.EXECUTION_STATE_SUCCEEDED, (seed, finished.error.message)
        assert [outputs.get((f"n{number}", "text")) for number in range(len(gives))] == gives, seed
        assert [nodes[f"n{number}"] == "skipped" for number in range(len(gives))] == [g is None for g in gives], seed

    async with asyncio.TaskGroup() as tasks:
        for seed in range(12):
            tasks.create_task(holds(seed))


async def after(mesh, agents, node_id, source):
    """Run to the end, where what is slow goes on once a node has finished; return the last event and the texts."""
    event, outputs = pb.ExecutionEvent(), {}
    agents.release.clear()
    async for event in mesh.flows.run(source, timeout=5):
        if event.HasField("node_finished") and event.node_id == node_id:
            agents.release.set()
        if event.HasField("node_output"):
            outputs[event.node_id, event.node_output.pin] = event.node_output.value.text
    agents.release.clear()
    return event.execution_finished, outputs


async def test_what_a_node_did_not_give_is_null_while_the_condition_waits_for_something_else(mesh, agents) -> None:
    source = flow(
        "text test.echo, outputs: {text: hi}", "pick test.picky", "wait test.slow", "end test.echo",
        edges="text.text>pick.text wait.text>end.text",
        when={"wait.text>end.text": "pick.length == null and value == 'slow'"},
    )  # fmt: skip
    finished, outputs = await after(mesh, agents, "pick", source)
    assert (finished.state, outputs["end", "text"]) == (pb.EXECUTION_STATE_SUCCEEDED, "slow")


async def test_an_alternative_that_gave_nothing_leaves_its_pin_to_the_other_one(mesh, agents) -> None:
    source = flow(
        "text test.echo, outputs: {text: hi}", "pick test.picky", "wait test.slow", "end test.join",
        edges="text.text>pick.text pick.length>end.a wait.text>end.a text.text>end.b",
        when={"text.text>pick.text": "value == 'hi'", "wait.text>end.a": "value == 'slow'"},
    )  # fmt: skip
    finished, outputs = await after(mesh, agents, "pick", source)
    assert (finished.state, outputs["end", "text"]) == (pb.EXECUTION_STATE_SUCCEEDED, "slow+hi")
