from __future__ import annotations

import asyncio

import pytest

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.source import read_flow
from mediamesh.wire.errors import InvalidFlow, NotFound
from tests.orchestrator.conftest import orchestrating, serving_agents
from tests.orchestrator.fake_agents import MANIFESTS, Agents
from tests.orchestrator.flow_texts import flow

AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}


def checked(source):
    draft = read_flow(source, max_nodes=100)
    check_flow(draft, AGENTS)
    return draft


def issues(source):
    return [
        (flow_pb2.FlowIssueCode.Name(issue.code).removeprefix("FLOW_ISSUE_CODE_"), issue.line, issue.message)
        for issue in checked(source).in_order()
    ]


TEXT = "text test.echo, outputs: {text: hello}"


@pytest.mark.parametrize(
    ("source", "code", "line", "message"),
    [
        (flow("a test.ecko"), "UNKNOWN_AGENT", 6, "No agent `test.ecko` is known. Did you mean `test.echo`?"),
        (
            flow(TEXT, "b ui.stream-console", edges="tekst.text>b.input"),
            "UNKNOWN_NODE",
            9,
            "There is no node `tekst`. Did you mean `text`?",
        ),
        (
            flow(TEXT, "b test.echo", edges="text.text>b.txt text.text>b.text"),
            "UNKNOWN_PIN",
            9,
            "`test.echo` has no input pin `txt`. Did you mean `text`?",
        ),
        (
            flow("a test.painter", "b ui.stream-console", edges="a.picture>b.input"),
            "UNKNOWN_PIN",
            9,
            "`test.painter` has no output pin `picture`. There are `image`.",
        ),
        (
            flow("a test.producer, params: {cuont: 3}"),
            "INVALID_PARAM",
            6,
            "`test.producer` has no parameter `cuont`. Did you mean `count`?",
        ),
        (
            flow("a test.producer, params: {count: three}"),
            "INVALID_PARAM",
            6,
            "The parameter `count` is wrong: it takes number, got string.",
        ),
        (
            flow(TEXT, "b test.echo, params: {text: x}", edges="text.text>b.text"),
            "INVALID_PARAM",
            7,
            "`text` is an input pin of `test.echo`, not a parameter: feed it by an edge.",
        ),
        (flow("a test.needy"), "INVALID_PARAM", 6, "`test.needy` needs the parameter `name`."),
        (flow("a test.echo"), "UNCONNECTED_PIN", 6, "The input pin `a.text` (test.echo) needs an edge."),
        (
            flow("a test.echo", "b test.echo", "c test.echo", edges="a.text>b.text b.text>c.text c.text>a.text"),
            "CYCLE",
            12,
            "These nodes wait for each other: `a` → `b` → `c` → `a`.",
        ),
        (
            flow("a test.echo", edges="a.text>a.text"),
            "CYCLE",
            8,
            "These nodes wait for each other: `a` → `a`.",
        ),
        (
            flow("a test.painter", "b test.echo", edges="a.image>b.text"),
            "MULTIMODAL_NOT_SUPPORTED",
            9,
            "`a.image` cannot feed `b.text`: test.echo takes text and no image at `text`.",
        ),
        (
            flow("u ui.file-upload", "a test.viewer", "b test.echo", edges="u.file>a.image u.file>b.text"),
            "MULTIMODAL_NOT_SUPPORTED",
            11,
            "`u.file` cannot feed `b.text`: test.echo takes text and no image at `text`.",
        ),
        (
            flow(TEXT, "a test.echo, response: streaming", edges="text.text>a.text"),
            "STREAMING_NOT_SUPPORTED",
            7,
            "`test.echo` answers at once (response.mode is sync); it cannot be asked for a stream.",
        ),
        (
            flow("a test.answerer, response: both"),
            "SYNTAX",
            6,
            "`response` is one of `sync`, `streaming`, not `both`.",
        ),
        (
            flow("a test.recorder", "b test.hearer", edges="a.audio>b.audio"),
            "INCOMPATIBLE_PINS",
            9,
            "`a.audio` cannot feed `b.audio`: sampleRate must be 16000 Hz, is 44100; convert between them.",
        ),
        (
            flow("a test.echo, outputs: {text: 5}"),
            "INCOMPATIBLE_PINS",
            6,
            "The constant for `text` does not fit: it takes string, got number.",
        ),
        (
            flow("a test.echo, outputs: {txt: x}"),
            "UNKNOWN_PIN",
            6,
            "`test.echo` has no output pin `txt`. Did you mean `text`?",
        ),
        (
            flow(TEXT, "b test.echo", edges="text.text>b.text text.text>b.text"),
            "MULTIPLE_EDGES",
            10,
            "`b.text` takes one value, and the edge in line 9 feeds it already.",
        ),
        (
            flow("u ui.file-upload", "a test.viewer", "b test.hearer", edges="u.file>a.image u.file>b.audio"),
            "INCOMPATIBLE_PINS",
            11,
            "`u.file` cannot feed `b.audio`: takes audio, got image.",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(source, code, line, message) -> None:
    assert issues(source) == [(code, line, message)]


@pytest.mark.parametrize("mode", ["sync", "streaming"])
def test_a_module_that_does_both_may_be_asked_for_either(mode) -> None:
    draft = checked(flow(f"a test.answerer, response: {mode}"))
    assert not draft.issues
    assert ResponseMode.Name(draft.flow.nodes[0].response_mode) == f"RESPONSE_MODE_{mode.upper()}"


def test_what_fits_is_let_through() -> None:
    assert not issues(flow(TEXT, "b test.join", edges="text.text>b.a text.text>b.b"))
    assert not issues(
        flow("a test.producer", "b test.producer", "c test.consumer", edges="a.stream>c.stream b.stream>c.stream")
    )


def test_open_pins_take_the_type_and_the_constraints_of_the_other_end() -> None:
    draft = checked(
        flow("u ui.file-upload", "v test.viewer", "s ui.stream-console", edges="u.file>v.image v.url>s.input")
    )
    assert not draft.issues
    upload, _, show = draft.flow.nodes
    assert upload.output_pins[0].type == pin_pb2.PIN_TYPE_IMAGE
    assert list(upload.output_pins[0].constraints.mime_types) == ["image/*"]
    assert show.input_pins[0].type == pin_pb2.PIN_TYPE_STRING


async def test_all_mistakes_come_back_from_the_server_in_the_order_of_the_file(mesh) -> None:
    source = flow("a test.ecko", "b test.echo", "b test.echo", edges="a.text>c.text", name="bad.mlab")
    answer = await mesh.flows.validate(source)
    assert [(issue.file, issue.line) for issue in answer.issues] == [("bad.mlab", n) for n in (6, 7, 8, 10)]
    with pytest.raises(InvalidFlow) as raised:
        await mesh.flows.start(source)
    assert [field for field, _ in raised.value.violations] == [
        f"bad.mlab:{issue.line}:{issue.column}" for issue in answer.issues
    ]


async def test_agents_are_listed_with_those_of_the_client(mesh) -> None:
    ids = [manifest.id for manifest in await mesh.flows.agents()]
    assert ids == sorted(AGENTS)


class Late(Agents):
    """Says what it runs once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def Describe(self, request, context):
        await self.let.wait()
        return await super().Describe(request, context)


async def test_who_lists_agents_as_the_server_begins_waits_for_what_they_say(settings) -> None:
    late = Late()
    async with serving_agents(late) as address, orchestrating(settings(agent_addresses=[address])) as mesh:
        listing = asyncio.ensure_future(mesh.flows.agents())
        with pytest.raises(NotFound):
            await mesh.flows.get("nobody")  # what was asked before is under way
        late.let.set()
        assert [manifest.id for manifest in await listing] == sorted(AGENTS)
