from __future__ import annotations

from pathlib import Path

import pytest

from mediamesh.agent.manifest import load_manifest
from mediamesh.client.flow_files import read_flow_source
from mediamesh.orchestrator.builtin import BUILTIN, SINKS, SOURCES
from mediamesh.orchestrator.check import check_flow
from mediamesh.orchestrator.expansion import expanded
from mediamesh.orchestrator.wiring import ends

ROOT = Path(__file__).parents[2]
MANIFESTS = [load_manifest(path) for path in (ROOT / "servers/mediamesh/agents").glob("*/manifest.yaml")]
AGENTS = {**BUILTIN, **{manifest.id: manifest for manifest in MANIFESTS}}
FLOWS = sorted((ROOT / "clients/examples/flows").glob("*.mlab"))


def checked(path):
    draft = expanded(read_flow_source(path), max_nodes=256)
    check_flow(draft, AGENTS)
    return draft


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_a_flow_that_ships_has_no_mistake_and_needs_no_conversion(path) -> None:
    draft = checked(path)
    assert not draft.issues
    assert not any(node.generated for node in draft.flow.nodes)


def arrows(draft):
    kinds = {node.id: node.type for node in draft.flow.nodes}
    return {
        (kinds[source.node_id], source.pin, kinds[target.node_id], target.pin)
        for source, target in map(ends, draft.flow.edges)
    }


def test_the_showcase_is_what_the_requirement_says() -> None:
    draft = checked(ROOT / "clients/examples/flows/showcase.mlab")
    assert arrows(draft) == {
        ("ui.file-upload", "file", "mediamesh.image-classifier", "image"),
        ("ui.audio-recorder", "audio", "mediamesh.audio-transcriber", "audio"),
        ("ui.file-upload", "file", "mediamesh.video-analyzer", "video"),
        ("mediamesh.image-classifier", "classification", "mediamesh.multimodal-aggregator", "image_results"),
        ("mediamesh.audio-transcriber", "transcript", "mediamesh.multimodal-aggregator", "audio_stream"),
        ("mediamesh.video-analyzer", "analysis_stream", "mediamesh.multimodal-aggregator", "video_stream"),
        ("mediamesh.multimodal-aggregator", "combined_stream", "ui.stream-viewer", "input"),
    }
    params = {node.id: dict(node.params) for node in draft.flow.nodes if node.params}
    assert params == {"transcribe": {"language": "auto"}, "analyze": {"analysis_type": "object_detection"}}


def test_the_multimodal_test_needs_a_sound_alone() -> None:
    draft = checked(ROOT / "clients/examples/flows/multimodal-test.mlab")
    assert [node.id for node in draft.flow.nodes if node.type in SOURCES] == ["audio"]
    assert [node.type for node in draft.flow.nodes if node.type in SINKS] == ["ui.stream-console"] * 2
    assert ("test.image-generator", "image", "mediamesh.image-classifier", "image") in arrows(draft)
    assert ("mediamesh.audio-transcriber", "transcript", "ui.stream-console", "input") in arrows(draft)
