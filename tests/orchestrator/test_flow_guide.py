"""The fragments of flows in the guide, put into flows and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mediamesh.agent.manifest import load_manifest
from mediamesh.api.flow.v1.flow_pb2 import FlowFile, FlowSource
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.expansion import expanded
from tests.orchestrator.fake_agents import AUDIO, JSON, NUMBER, STRING, manifest, pin

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/flows.md").read_text()
AGENTS = {
    **BUILTIN,
    **{
        known.id: known
        for known in (
            *map(load_manifest, (ROOT / "servers/mediamesh/agents").glob("*/manifest.yaml")),
            manifest("example.limits", [], [pin("top_k", NUMBER)]),
            manifest("example.list", [], [pin("list", JSON)]),
            manifest("example.check", [pin("text", STRING)], [pin("text", STRING)]),
            manifest("example.aiff", [], [pin("audio", AUDIO, mime_types=["audio/aiff"])]),
            manifest("example.ear", [pin("audio", AUDIO, mime_types=["audio/wav", "audio/flac"])]),
        )
    },
}
PHOTO = [{"id": "photo", "type": "ui.file-upload"}]
CLASSIFY = [{"id": "classify", "type": "mediamesh.image-classifier"}]
INNER = [
    {"id": "limits", "type": "example.limits", "outputs": {"top_k": 5}},
    *PHOTO,
    {**CLASSIFY[0], "params": {"top_k": "${limits.top_k}"}},
]


def fragment(heading):
    """Return what the first YAML under a heading says."""
    found = re.search(rf"^#+ {heading}\n.*?```yaml\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return yaml.safe_load(found[1])


def checked(nodes, edges=(), **files):
    def text(nodes, edges):
        graph = {"nodes": nodes, "edges": list(edges)}
        return yaml.safe_dump({"apiVersion": "v1beta1", "kind": "Flow", "meta": {"id": "guide"}, "graph": graph})

    source = FlowSource(name="talk.mlab", yaml=text(nodes, edges))
    source.files.extend(FlowFile(name=name, yaml=text(*parts)) for name, parts in files.items())
    draft = expanded(source, max_nodes=100)
    check_flow(draft, AGENTS)
    return draft


def edge(start, end):
    return {"from": start, "to": end}


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        ([*fragment("Constants")["nodes"], *PHOTO], [edge("photo.file", "classify.image")]),
        (
            [
                *PHOTO, *CLASSIFY,
                {"id": "enlarge", "type": "mediamesh.image-converter", "params": {"width": 224}},
                {"id": "show", "type": "ui.stream-console"},
            ],
            fragment("Conditions")["edges"],
        ),
        (
            [*fragment("Lists"), {"id": "all", "type": "example.list", "outputs": {"list": []}}],
            [edge("all.list", "describe.image"), edge("all.list", "check.text")],
        ),
    ],
)  # fmt: skip
def test_what_the_guide_shows_is_right(nodes, edges) -> None:
    assert not checked(nodes, edges).issues


def test_a_flow_within_a_flow_is_as_the_guide_shows() -> None:
    nodes = [*fragment("Flows within flows"), {"id": "up", "type": "ui.file-upload"}]
    inner = (INNER, [edge("photo.file", "classify.image")])
    draft = checked(nodes, [edge("up.file", "read.photo")], **{"parts/read.mlab": inner})
    assert not draft.issues
    classify = next(node for node in draft.flow.nodes if node.id == "read.classify")
    assert (dict(classify.params), classify.file) == ({"top_k": 3}, "parts/read.mlab")


def test_an_offer_of_a_conversion_reads_as_in_the_guide() -> None:
    nodes = [{"id": "record", "type": "example.aiff"}, {"id": "hear", "type": "example.ear"}]
    (issue,) = checked(nodes, [edge("record.audio", "hear.audio")]).issues
    shown = re.search(r"```text\ntalk\.mlab:\d+:\d+: (.*?) \.\.\.\n```", GUIDE, re.DOTALL)
    assert shown is not None
    assert issue.message.startswith(shown[1].replace("\n", " "))


def test_the_whole_flow_of_the_guide_is_right() -> None:
    whole = fragment("Flows")
    assert not checked(whole["graph"]["nodes"], whole["graph"]["edges"]).issues
