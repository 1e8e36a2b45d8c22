"""What flows ask for, against what agents declare and what this mesh may do."""

from __future__ import annotations

import pytest

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.orchestrator.settings import Settings
from mediamesh.wire.errors import (
    InvalidFlow,
    MediaTooLarge,
    MeshError,
    MultimodalNotSupported,
    StreamingNotSupported,
)
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

TEXT = "text test.echo, outputs: {text: hello}"
ASKING = flow(TEXT, "a test.echo, response: streaming", edges="text.text>a.text")
PICTURE = flow("paint test.painter", "a test.echo", edges="paint.image>a.text")


def image(data: bytes) -> value_pb2.Value:
    return value_pb2.Value(media=media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, inline=data))


async def refusal(mesh, source, inputs=None) -> MeshError:
    with pytest.raises(MeshError) as raised:
        await mesh.flows.start(source, inputs)
    return raised.value


async def test_a_flow_that_asks_a_stream_of_who_has_none_is_refused_with_its_line(mesh) -> None:
    error = await refusal(mesh, ASKING)
    assert isinstance(error, StreamingNotSupported)
    assert error.number == "E4010"
    assert error.text.startswith("test.mlab:7:")


async def test_a_flow_that_feeds_media_to_a_module_of_text_is_refused_with_its_line(mesh) -> None:
    error = await refusal(mesh, PICTURE)
    assert isinstance(error, MultimodalNotSupported)
    assert error.number == "E4011"
    assert error.text.startswith("test.mlab:9:")


async def test_a_flow_with_other_mistakes_too_names_all_of_them(mesh) -> None:
    source = flow(TEXT, "a test.echo, response: streaming, params: {no: 1}", edges="text.text>a.text")
    error = await refusal(mesh, source)
    assert isinstance(error, InvalidFlow)
    assert len(error.violations) == 2


async def test_media_given_for_a_module_of_text_is_refused_before_anything_runs(mesh) -> None:
    source = flow("upload ui.file-upload", "a test.echo", edges="upload.file>a.text")
    error = await refusal(mesh, source, {"upload.file": image(b"png")})
    assert isinstance(error, MultimodalNotSupported)
    assert error.text == "test.echo takes text and no image at `text`."


async def test_media_beyond_what_a_module_takes_is_refused_before_anything_runs(mesh) -> None:
    source = flow("upload ui.file-upload", "a test.thumbnail", edges="upload.file>a.image")
    error = await refusal(mesh, source, {"upload.file": image(b"png, and more")})
    assert isinstance(error, MediaTooLarge)
    assert error.violations == [
        ("inputs['upload.file']", "must be at most 1e-05 MB, is 1.3e-05 MB (max_image_size_mb)")
    ]


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("", "RESPONSE_MODE_UNSPECIFIED"),
        (", response: sync", "RESPONSE_MODE_SYNC"),
        (", response: streaming", "RESPONSE_MODE_STREAMING"),
    ],
    ids=["nothing", "sync", "streaming"],
)
async def test_what_a_node_asks_for_reaches_its_agent(mesh, said, asked) -> None:
    events = [event async for event in mesh.flows.run(flow(f"a test.answerer{said}"))]
    (text,) = [event.node_chunk.chunk.content.text for event in events if event.HasField("node_chunk")]
    assert text == asked


@pytest.mark.parametrize(
    ("flag", "source", "kind"),
    [
        ("enable_multimodal", flow("a test.painter", "b test.viewer", edges="a.image>b.image"), MultimodalNotSupported),
        (
            "enable_streaming",
            flow("a test.producer", "b test.consumer", edges="a.stream>b.stream"),
            StreamingNotSupported,
        ),
        ("enable_streaming", flow("a test.answerer, response: streaming"), StreamingNotSupported),
    ],
    ids=["media", "chunks", "answer"],
)
async def test_what_is_switched_off_is_not_implemented(settings, flag, source, kind) -> None:
    async with orchestrating(settings(**{flag: False})) as mesh:
        error = await refusal(mesh, source)
        assert type(error) is kind
        assert flag.upper() in error.text
        events = [event async for event in mesh.flows.run(flow(TEXT))]
        assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED


def test_the_flags_have_the_names_that_deployments_know(monkeypatch) -> None:
    assert Settings.load().enable_multimodal
    monkeypatch.setenv("ENABLE_MULTIMODAL", "false")
    monkeypatch.setenv("ENABLE_STREAMING", "0")
    loaded = Settings.load()
    assert not loaded.enable_multimodal
    assert not loaded.enable_streaming
    assert Settings.variable("enable_streaming") == "ENABLE_STREAMING"
    assert Settings.variable("streams_address") == "MEDIAMESH_ORCHESTRATOR_STREAMS_ADDRESS"
