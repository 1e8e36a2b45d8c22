from __future__ import annotations

import pytest

from mediamesh.api.flow.v1 import execution_pb2 as pb
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.source import read_flow
from mediamesh.wire.plain_values import plain_of
from tests.orchestrator.fake_agents import MANIFESTS
from tests.orchestrator.flow_texts import flow

AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}
SUCCEEDED, FAILED = pb.EXECUTION_STATE_SUCCEEDED, pb.EXECUTION_STATE_FAILED
TEXT = "text test.echo, outputs: {text: hello}"


def each(elements, keys="forEach: text", *more, edges=""):
    return flow(
        f"all test.list, outputs: {{list: {elements}}}",
        f"a test.picky, {keys}",
        *more,
        edges=f"all.list>a.text {edges}",
    )


def issues(source):
    draft = read_flow(source, max_nodes=100)
    check_flow(draft, AGENTS)
    return [
        (flow_pb2.FlowIssueCode.Name(issue.code).removeprefix("FLOW_ISSUE_CODE_"), issue.column, issue.message)
        for issue in draft.in_order()
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (each("[a]"), []),
        (each("[a]", "forEach: {pin: text, parallel: 64, onError: keep}"), []),
        (
            each("[a]", "forEach: txt"),
            [
                ("UNKNOWN_PIN", 42, "`test.picky` has no input pin `txt` to run over. Did you mean `text`?"),
                ("INCOMPATIBLE_PINS", 28, "`all.list` cannot feed `a.text`: takes string, got json."),
            ],
        ),
        (
            each("[a]", "forEach: {pin: text, parallel: 0}"),
            [("SYNTAX", 64, "`parallel` is a whole number from 1 to 64.")],
        ),
        (
            each("[a]", "forEach: {pin: text, onError: stop}"),
            [("SYNTAX", 63, "`onError` is one of `fail`, `keep`, `drop`, not `stop`.")],
        ),
        (
            flow("p test.producer", "c test.consumer, forEach: stream", edges="p.stream>c.stream"),
            [("INCOMPATIBLE_PINS", 45,
              "`stream` of `test.consumer` is a stream; `forEach` runs over a list on a pin for one value.")],
        ),
        (
            flow(TEXT, "a test.picky, forEach: text", edges="text.text>a.text"),
            [],
        ),
        (
            each("[a]", "forEach: text", "s ui.stream-console", edges="a.stream>s.input"),
            [("UNKNOWN_PIN", 14, "`test.picky` has no output pin `stream`. There are `length`, `text`.")],
        ),
        (
            flow("x test.list, outputs: {list: [1]}, forEach: list"),
            [("INCOMPATIBLE_PINS", 63, "`forEach` is for nodes that run an agent; `x` runs none.")],
        ),
    ],
)  # fmt: skip
def test_what_a_node_runs_over_is_checked(source, expected) -> None:
    assert issues(source) == expected


async def ended(mesh, source, inputs=None):
    outputs, told = {}, []
    async for event in mesh.flows.run(source, inputs or {}, timeout=20):
        kind = event.WhichOneof("event")
        if kind == "node_output" and event.node_output.value.HasField("json"):
            outputs[event.node_id, event.node_output.pin] = plain_of(event.node_output.value.json)
        if kind == "node_progress" and event.node_id == "a":
            told.append(event.node_progress.message)
        if kind == "execution_finished":
            return event.execution_finished, outputs, told
    raise AssertionError


async def test_a_node_runs_once_for_each_element_and_gives_lists_in_order(mesh) -> None:
    source = each(
        [f"w{number}" for number in range(30)], "forEach: {pin: text, parallel: 7}", TEXT, edges="text.text>a.greeting"
    )
    finished, outputs, told = await ended(mesh, source)
    assert finished.state == SUCCEEDED
    assert outputs["a", "text"] == [f"hellow{number}" for number in range(30)]
    assert outputs["a", "length"] == [None] * 30
    assert told == [f"{number} of 30" for number in range(1, 31)]


async def test_an_empty_list_gives_empty_lists(mesh) -> None:
    finished, outputs, _ = await ended(mesh, each("[]"))
    assert (finished.state, outputs["a", "text"], outputs["a", "length"]) == (SUCCEEDED, [], [])


async def test_lists_go_on_to_nodes_that_run_over_them_too(mesh) -> None:
    source = each("[four, to]", "forEach: text", "b test.picky, forEach: text", edges="a.text>b.text")
    _, outputs, _ = await ended(mesh, source)
    assert outputs["b", "length"] == [4, None]


@pytest.mark.parametrize(("policy", "expected"), [("keep", ["one", None, "three", None]), ("drop", ["one", "three"])])
async def test_elements_that_fail_are_kept_as_null_or_dropped(mesh, policy, expected) -> None:
    source = each("[one, bad two, three, bad four]", f"forEach: {{pin: text, parallel: 1, onError: {policy}}}")
    finished, outputs, told = await ended(mesh, source)
    assert (finished.state, outputs["a", "text"]) == (SUCCEEDED, expected)
    assert told[1] == "element 1 failed: I do not like bad two."


async def test_an_element_that_fails_fails_the_node_and_stops_the_others(mesh, agents) -> None:
    source = each("[slow one, bad two, three]", "forEach: {pin: text, parallel: 2}")
    finished, _, _ = await ended(mesh, source)
    assert finished.state == FAILED
    assert finished.error.message == "The node `a` failed: Element 1: I do not like bad two."


async def test_no_more_run_at_a_time_than_the_flow_says(mesh, agents) -> None:
    agents.release.clear()
    execution = await mesh.flows.start(each([f"slow {n}" for n in range(9)], "forEach: {pin: text, parallel: 3}"))
    run = execution.execution_id
    await agents.until(lambda: agents.running[run] == 3)
    agents.release.set()
    counts = [agents.running[run] async for _ in mesh.flows.watch(run)]
    assert max(counts) <= 3
    assert (await mesh.flows.get(run)).state == SUCCEEDED
    agents.release.clear()


async def test_a_run_over_a_list_that_is_cancelled_cancels_what_is_at_work(mesh, agents) -> None:
    agents.release.clear()
    execution = await mesh.flows.start(each([f"slow {n}" for n in range(9)], "forEach: {pin: text, parallel: 3}"))
    run = execution.execution_id
    await agents.until(lambda: agents.running[run] == 3)
    assert (await mesh.flows.cancel(run)).state == pb.EXECUTION_STATE_CANCELLED
    await agents.until(lambda: agents.cancelled[run] == 3 and agents.running[run] == 0)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ("{a: 1}", "inputs.text: must be a list, as the node runs for each of its elements"),
        ("[one, 2]", "Element 1: inputs.text: takes string, got number"),
        (["x"] * 4097, "inputs.text: must have at most 4096 elements, has 4097"),
    ],
)
async def test_what_is_no_list_of_such_elements_fails_the_node(mesh, elements, message) -> None:
    finished, _, _ = await ended(mesh, each(elements))
    assert finished.state == FAILED
    assert message in finished.error.message


async def test_media_goes_in_and_out_as_references(mesh) -> None:
    source = flow(
        "n test.list, outputs: {list: [1, 2, 3]}", "p test.copier, forEach: number", "v test.viewer, forEach: image",
        edges="n.list>p.number p.image>v.image",
    )  # fmt: skip
    finished, outputs, _ = await ended(mesh, source)
    assert finished.state == SUCCEEDED, finished.error.message
    urls = [image["ref"]["url"] for image in outputs["p", "image"]]
    assert {image["type"] for image in outputs["p", "image"]} == {"image"}
    assert outputs["v", "url"] == urls
    assert len(urls) == 3
