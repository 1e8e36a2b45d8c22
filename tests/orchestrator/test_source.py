from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.source import read_flow
from tests.orchestrator.fake_agents import MANIFESTS

AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}
GOOD = """\
apiVersion: v1beta1
kind: Flow
meta: {id: a, name: A, description: b}
graph:
  nodes:
    - id: one
      type: test.echo
      timeout: 2.5
"""


def read(text, **options):
    return read_flow(FlowSource(name="a.mlab", yaml=text), **{"max_nodes": 8, **options})


def problems(text, **options):
    return [(issue.line, issue.column, issue.message) for issue in read(text, **options).in_order()]


def test_a_flow_is_read_with_its_lines() -> None:
    draft = read(GOOD)
    assert not draft.issues
    assert (draft.flow.id, draft.flow.name, draft.flow.nodes[0].line) == ("a", "A", 6)
    assert draft.flow.nodes[0].timeout.ToMilliseconds() == 2500


def test_the_example_has_no_mistake_but_its_agent() -> None:
    path = Path(__file__).parents[2] / "clients/examples/flows/classify.mlab"
    draft = read(path.read_text())
    check_flow(draft, BUILTIN)
    assert [issue.code for issue in draft.issues] == [flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT]


def test_what_is_not_yaml_is_said_where_it_is_not() -> None:
    ((line, column, message),) = problems("a: b\nc: [1,")
    assert (line, column) == (3, 1)
    assert message.startswith("This is not YAML")


def test_all_mistakes_of_shape_are_told_at_once() -> None:
    text = """\
apiVersion: v2
kind: Flow
kind: Flow
mta: {}
graph:
  nodes:
    - {id: a b, type: x}
    - {id: a, type: x, parms: {}}
    - {id: a, type: x, timeout: -1}
    - {type: x}
    - {id: c, type: x, timeout: no, params: {1: .inf, b: 99999999999999999999}}
    - five
  edges:
    - {from: a, to: b.c}
    - {from: a.b}
"""
    said = problems(text)
    assert [(line, message) for line, _, message in said] == [
        (1, "The file needs the key `meta`."),
        (1, "`apiVersion` must be `v1beta1`, not `v2`."),
        (3, "The key `kind` is there twice."),
        (4, "The file has no key `mta`. Did you mean `meta`?"),
        (7, "`id` is letters, digits, `_` and `-`, 64 characters at most, not `a b`."),
        (8, "A node has no key `parms`. Did you mean `params`?"),
        (9, "The node `a` is there twice; the first is in line 8."),
        (10, "A node needs the key `id`."),
        (11, "`timeout` is a number of seconds above 0, 86400 at most."),
        (11, "A number must be finite."),
        (11, "A whole number beyond 2^53 would lose digits; write it as text."),
        (12, "A node must be a mapping."),
        (14, "`from` is `node.pin`, not `a`."),
        (15, "An edge needs the key `to`."),
    ]


def test_too_much_of_anything_is_refused() -> None:
    nodes = "".join(f"    - {{id: n{number}, type: x}}\n" for number in range(9))
    assert "at most 8 nodes; this one has 9" in str(problems(GOOD.split("    - id", maxsplit=1)[0] + nodes))
    assert "nest deeper than 32" in str(problems("[" * 100_000))
    assert "more than 50000 values" in str(problems("a: [" + "1," * 60_000 + "]"))


def test_an_alias_bomb_costs_nothing_and_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]\n" for n in range(1, 10)
    )
    text = GOOD + "      params:\n" + "".join(f"        {line}\n" for line in bomb.splitlines())
    assert "Aliases make this value too large." in str(problems(text))
    assert "Aliases make this value too large." in str(problems(GOOD + "      params: {a: &a [*a]}\n"))


def test_tags_that_could_do_something_are_refused() -> None:
    assert "is not allowed" in str(problems(GOOD + "      params: {a: !!python/object/apply:os.system [ls]}\n"))
    assert "is not allowed" in str(problems(GOOD + "      params: {a: !!python/name:os.system x}\n"))


def test_a_date_is_text() -> None:
    draft = read(GOOD + "      params: {a: 2026-01-01, b: 1, c: true, d: null, e: [x]}\n")
    assert not draft.issues
    assert draft.flow.nodes[0].params.fields["a"].string_value == "2026-01-01"


def check_whatever(text: str) -> None:
    draft = read(text)
    check_flow(draft, AGENTS)
    for issue in draft.in_order():
        assert issue.line >= 1
        assert issue.message
        assert issue.code


@given(st.text())
def test_no_text_crashes_the_check(text) -> None:
    check_whatever(text)


@given(st.binary())
def test_no_bytes_crash_the_check(data) -> None:
    check_whatever(data.decode("utf-8", "replace"))


KEYS = st.sampled_from(
    ["id", "type", "params", "outputs", "timeout", "from", "to", "nodes", "edges", "graph", "<<", "x"]
)
PLAIN = ("a", "b", "a.text", "b.text", "test.echo", "ui.stream-console", "1", ".nan", "0x_", "~", "on", "1:30")
SCALARS = st.sampled_from([*PLAIN, "!!set x", "&a b", "*a", "!!python/name:os.system x"])
YAML = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: "[" + ", ".join(parts) + "]")
        | st.lists(st.tuples(KEYS, inner), max_size=5).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)


@pytest.mark.stack
@given(YAML, YAML)
def test_no_yaml_crashes_the_check(nodes, edges) -> None:
    check_whatever(f"apiVersion: v1beta1\nkind: Flow\nmeta: {{id: a}}\ngraph:\n  nodes: {nodes}\n  edges: {edges}\n")


NODES = st.lists(
    st.builds(
        "{{id: {}, type: {}{}}}".format,
        st.sampled_from("abcd"),
        st.sampled_from(sorted(AGENTS)),
        st.sampled_from(["", ", outputs: {text: x}", ", params: {suffix: 1}", ", outputs: {}"]),
    ),
    min_size=1,
    max_size=6,
)
PINS = st.sampled_from(["text", "stream", "input", "file", "image", "count", "a", "b", "audio", "zzz"])
EDGES = st.lists(
    st.builds("{{from: {}.{}, to: {}.{}}}".format, st.sampled_from("abcde"), PINS, st.sampled_from("abcde"), PINS),
    max_size=8,
)


@given(NODES, EDGES)
def test_no_graph_crashes_the_check(nodes, edges) -> None:
    check_whatever(
        f"apiVersion: v1beta1\nkind: Flow\nmeta: {{id: a}}\ngraph:\n  nodes: [{', '.join(nodes)}]\n"
        f"  edges: [{', '.join(edges)}]\n"
    )


def node(extra):
    return GOOD + f"      {extra}\n"


def test_retries_are_a_number_or_say_how_long_the_pauses_are() -> None:
    assert read(node("retries: 3")).flow.nodes[0].retry.max_attempts == 4
    assert read(node("retries: 0")).flow.nodes[0].retry.max_attempts == 1
    assert not read(GOOD).flow.nodes[0].HasField("retry")
    full = read(node("retries: {max: 2, initialBackoff: 0.5, maxBackoff: 8, multiplier: 3}")).flow.nodes[0].retry
    assert (full.max_attempts, full.initial_backoff.ToMilliseconds(), full.max_backoff.seconds) == (3, 500, 8)
    assert full.backoff_multiplier == 3


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("retries: 2.5", 16, "`retries` is a whole number from 0 to 20."),
        ("retries: true", 16, "`retries` is a whole number from 0 to 20."),
        ("retries: {maxBackoff: 3}", 16, "`retries` needs the key `max`."),
        ("retries: {max: 1, multiplier: 0.5}", 37, "`multiplier` is a number from 1 to 10."),
        ("retries: {max: 1, initialBackoff: 4, maxBackoff: 3}", 56, "`maxBackoff` is not below `initialBackoff`."),
        ("retries: {max: 1, pause: 3}", 32, "`retries` has no key `pause`. There are `initialBackoff`, `max`"),
        ("cache: 1", 14, "`cache` is true or false."),
    ],
)
def test_retries_and_cache_that_are_wrong_are_told(line, column, message) -> None:
    ((at, where, said),) = problems(node(line))
    assert (at, where) == (9, column)
    assert said.startswith(message)


def test_the_cache_is_on_off_or_as_the_agent_has_it() -> None:
    assert read(node("cache: true")).flow.nodes[0].cache
    assert read(node("cache: false")).flow.nodes[0].HasField("cache")
    assert not read(GOOD).flow.nodes[0].HasField("cache")
