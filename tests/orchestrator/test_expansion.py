from __future__ import annotations

import pytest
from google.protobuf import json_format

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.api.flow.v1.flow_pb2 import FlowFile, FlowSource
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.expansion import expanded
from mediamesh.orchestrator.wiring import ends
from tests.orchestrator.fake_agents import MANIFESTS
from tests.orchestrator.flow_texts import flow

AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}
TEXT = "text test.echo, outputs: {text: hello}"
# Takes a text, says it with an ending, and shows it.
SAY = flow(
    "said ui.file-upload",
    "ending test.echo, outputs: {text: '!'}",
    "echo test.echo, params: {suffix: '${ending.text}'}",
    "answer ui.stream-console",
    edges="said.file>echo.text echo.text>answer.input",
).yaml


def whole(source: FlowSource, /, **files: str):
    source.files.extend(FlowFile(name=name.replace("__", "/") + ".mlab", yaml=text) for name, text in files.items())
    return expanded(source, max_nodes=100)


def checked(source: FlowSource, **files: str):
    draft = whole(source, **files)
    check_flow(draft, AGENTS)
    return draft


def arrows(draft):
    return sorted(f"{a.node_id}.{a.pin}>{b.node_id}.{b.pin}" for a, b in map(ends, draft.flow.edges))


def problems(draft):
    return [(issue.file, issue.line, issue.column, issue.message) for issue in draft.in_order()]


def test_a_node_that_names_a_file_becomes_the_nodes_of_that_file() -> None:
    source = flow(TEXT, "say, flow: say.mlab", "end test.echo", edges="text.text>say.said say.answer>end.text")
    draft = checked(source, say=SAY)
    assert not draft.issues
    assert [node.id for node in draft.flow.nodes] == ["text", "say.ending", "say.echo", "end"]
    assert arrows(draft) == ["say.echo.text>end.text", "text.text>say.echo.text"]
    assert [(node.file, node.line) for node in draft.flow.nodes] == [("", 6), ("say.mlab", 7), ("say.mlab", 8), ("", 8)]


def test_ends_that_no_edge_joins_stay_the_clients() -> None:
    draft = checked(flow("say, flow: say.mlab"), say=SAY)
    assert not draft.issues
    assert [node.id for node in draft.flow.nodes] == ["say.said", "say.ending", "say.echo", "say.answer"]


def test_a_value_may_go_straight_through_flows_and_to_several_nodes() -> None:
    through = flow("a ui.file-upload", "z ui.stream-console", edges="a.file>z.input").yaml
    source = flow(
        TEXT, "one, flow: x.mlab", "two, flow: x.mlab", "b test.echo", "c test.echo",
        edges="text.text>one.a one.z>two.a two.z>b.text two.z>c.text",
    )  # fmt: skip
    assert arrows(checked(source, x=through)) == ["text.text>b.text", "text.text>c.text"]


def test_flows_nest_and_are_found_from_the_folder_of_who_names_them() -> None:
    middle = flow("u ui.file-upload", "in, flow: ../say.mlab", edges="u.file>in.said").yaml
    draft = checked(flow(TEXT, "m, flow: parts/middle.mlab", edges="text.text>m.u"), parts__middle=middle, say=SAY)
    assert not draft.issues
    assert [node.id for node in draft.flow.nodes] == ["text", "m.in.ending", "m.in.echo", "m.in.answer"]
    assert {node.file for node in draft.flow.nodes} == {"", "say.mlab"}


def test_parameters_of_the_node_set_the_constants_of_its_flow() -> None:
    source = flow(
        TEXT, "end test.echo, outputs: {text: '?'}", "say, flow: say.mlab, params: {ending.text: '${end.text}'}",
        edges="text.text>say.said",
    )  # fmt: skip
    draft = checked(source, say=SAY)
    assert not draft.issues
    echo = next(node for node in draft.flow.nodes if node.id == "say.echo")
    assert json_format.MessageToDict(echo.params) == {"suffix": "?"}


def test_the_mistakes_of_all_files_are_told_at_once_with_file_line_and_column() -> None:
    bad = flow(
        "said ui.file-upload", "echo test.ecko", "more test.echo, params: {sufix: x}", edges="said.file>echo.text"
    )
    source = flow(TEXT, "one, flow: bad.mlab", "two, flow: nowhere.mlab", "x test.exho", edges="text.text>one.sayd")
    assert problems(checked(source, bad=bad.yaml, band=SAY)) == [
        ("test.mlab", 8, 23, "There is no file `nowhere.mlab`. There are `bad.mlab`, `band.mlab`."),
        ("test.mlab", 9, 21, "No agent `test.exho` is known. Did you mean `test.echo`?"),
        ("test.mlab", 11, 29, "`bad.mlab` has no input `sayd`. Did you mean `said`?"),
        ("bad.mlab", 7, 24, "No agent `test.ecko` is known. Did you mean `test.echo`?"),
        ("bad.mlab", 8, 7, "The input pin `one.more.text` (test.echo) needs an edge."),
        ("bad.mlab", 8, 51, "`test.echo` has no parameter `sufix`. Did you mean `suffix`?"),
    ]


def test_a_mistake_in_a_flow_that_is_used_twice_is_told_once() -> None:
    bad = "apiVersion: v1\nkind: Flow\nmeta: {id: x}\ngraph: {nodes: [{id: a, type: test.flood}]}"
    draft = checked(flow("one, flow: bad.mlab", "two, flow: bad.mlab"), bad=bad)
    assert problems(draft) == [("bad.mlab", 1, 13, "`apiVersion` must be `v1beta1`, not `v1`.")]


def test_types_are_checked_across_the_border_at_the_outer_edge() -> None:
    picture = flow("paint test.painter", "say, flow: say.mlab", edges="paint.image>say.said")
    ((file, line, _, message),) = problems(checked(picture, say=SAY))
    assert (file, line) == ("test.mlab", 9)
    assert message == "`paint.image` cannot feed `say.echo.text`: test.echo takes text and no image at `text`."


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "test.mlab"}, "This flow would contain itself: `test.mlab` → `a.mlab` → `test.mlab`."),
        ({"a": "a.mlab"}, "This flow would contain itself: `a.mlab` → `a.mlab`."),
        ({"a": "b.mlab", "b": "a.mlab"}, "This flow would contain itself: `a.mlab` → `b.mlab` → `a.mlab`."),
    ],
)
def test_a_flow_that_would_contain_itself_is_refused(files, message) -> None:
    texts = {name: flow(f"x, flow: {inner}").yaml for name, inner in files.items()}
    draft = whole(flow("x, flow: a.mlab"), **texts)
    assert [(issue.code, issue.message) for issue in draft.issues] == [(flow_pb2.FLOW_ISSUE_CODE_CYCLE, message)]


@pytest.mark.parametrize("path", ["/etc/passwd", "say.yaml", "''"])
def test_only_flows_below_or_beside_are_named(path) -> None:
    (issue,) = whole(flow(f"x, flow: {path}"), say=SAY).issues[:1]
    assert "`flow` is the path of a .mlab file" in issue.message or issue.code == flow_pb2.FLOW_ISSUE_CODE_SYNTAX


def test_flows_cannot_grow_without_bounds() -> None:
    files = {f"f{depth}": flow(*(f"n{i}, flow: f{depth + 1}.mlab" for i in range(8))).yaml for depth in range(6)}
    files["f6"] = flow("a test.flood").yaml
    draft = whole(flow("x, flow: f0.mlab"), **files)
    assert draft.issues
    assert all("A flow has at most 100 nodes" in issue.message for issue in draft.issues)
    deep = {f"f{depth}": flow(f"n, flow: f{depth + 1}.mlab").yaml for depth in range(10)}
    assert [issue.message for issue in whole(flow("x, flow: f0.mlab"), **deep).issues] == [
        "Flows nest deeper than 8 levels."
    ]


def test_ids_stay_within_what_an_id_may_have() -> None:
    (issue,) = whole(flow(f"{'x' * 60}, flow: say.mlab"), say=flow(f"{'y' * 10} test.flood").yaml).issues
    assert (issue.line, issue.message.split(" has ")[1]) == (
        6,
        "71 characters; the id of a node, with those of the nodes around it,",
    )


def test_other_keys_are_not_for_a_node_that_is_a_flow() -> None:
    draft = whole(flow("x, flow: say.mlab, timeout: 3"), say=SAY)
    assert [issue.message.split(".")[0] for issue in draft.issues] == ["A node that is a flow has no key `timeout`"]


@pytest.mark.parametrize(
    ("nodes", "line", "message"),
    [
        (
            ["c test.echo, outputs: {text: hi}", "p test.producer, params: {count: '${c.txt}'}"],
            7,
            "`${c.txt}` refers to no constant of this flow. Did you mean `c.text`?",
        ),
        (
            ["c test.echo, outputs: {text: hi}", "p test.producer, params: {count: '${c.text}'}"],
            7,
            "The parameter `count` is wrong: it takes number, got string.",
        ),
        (
            ["c test.echo, outputs: {text: '${d.text}'}", "d test.echo, outputs: {text: '${c.text}'}"],
            7,
            "These constants refer to each other: `c.text` → `d.text` → `c.text`.",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(nodes, line, message) -> None:
    assert [(at, said) for _, at, _, said in problems(checked(flow(*nodes)))] == [(line, message)]


def test_a_dollar_is_kept_where_it_is_doubled_or_stands_alone() -> None:
    draft = checked(flow("c test.echo, outputs: {text: '$${c.text} $'}"))
    assert not draft.issues
    assert draft.flow.nodes[0].outputs["text"] == "${c.text} $"


def test_constants_that_refer_to_each_other_cannot_fill_the_memory() -> None:
    nodes = [
        f"n{i} test.join, outputs: {{text: '{'x' * 100}'}}"
        if i == 40
        else f"n{i} test.join, outputs: {{text: ['${{n{i + 1}.text}}', '${{n{i + 1}.text}}']}}"
        for i in range(41)
    ]
    draft = checked(flow(*nodes))
    assert any("bytes of them" in issue.message for issue in draft.issues)
