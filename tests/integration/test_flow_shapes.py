"""Flows that convert, run over lists, branch and contain flows, over a whole mesh with real media."""

from __future__ import annotations

import asyncio
import json
import math
import wave
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2

from mediamesh.agent import Agent, AgentSettings, parse_manifest, serving_agents
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_SUCCEEDED, ExecutionEvent
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_AUDIO, MEDIA_TYPE_IMAGE, MediaValue
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace
from mediamesh.cli.demo import mesh_up
from mediamesh.client import Mesh
from mediamesh.client.flow_files import read_flow_source
from mediamesh.wire.json import to_object
from mediamesh.wire.plain_values import plain_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
PHOTOS = Path(__file__).resolve().parents[2] / "clients/examples/media"


class Ear(Agent):
    """Takes sound of one form alone, and tells what it got."""

    def describe(self):
        return parse_manifest(
            "{id: test.ear, version: 1.0.0, outputs: [{name: facts, type: json}], inputs: [{name: audio, type: audio, "
            "constraints: {sampleRate: 16000, channels: 1}}]}"
        )

    async def process(self, run):
        return {"facts": to_object(run.inputs["audio"].ref.metadata)}


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving_agents(AgentSettings(grace_seconds=0), Ear()))
        agents = json.dumps([f"127.0.0.1:{port}"])
        folder = tmp_path_factory.mktemp("mesh")
        up = mesh_up(folder, MEDIAMESH_UP_EXTRA_AGENTS=agents, MEDIAMESH_UP_MODELS="[]")
        running = await asyncio.to_thread(stack.enter_context, up)
        yield await stack.enter_async_context(Mesh(running.door))


def written(folder, name, nodes, edges):
    """Write a flow and return its path."""
    head = f"apiVersion: v1beta1\nkind: Flow\nmeta: {{id: {Path(name).stem}}}\ngraph:\n"
    body = "".join(f"    - {{{node}}}\n" for node in nodes)
    lines = "".join(f"    - {{{edge}}}\n" for edge in edges)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"{head}  nodes:\n{body}  edges:\n{lines}")
    return folder / name


async def ended(mesh, path, inputs):
    """Run to the end; return what the nodes gave, by node and pin, and which were skipped."""
    given, skipped = {}, []
    event = ExecutionEvent()
    async for event in mesh.flows.run(read_flow_source(path), inputs, timeout=60):
        if event.HasField("node_output"):
            given[event.node_id, event.node_output.pin] = event.node_output.value
        if event.HasField("node_skipped"):
            skipped.append(event.node_id)
    assert event.execution_finished.state == EXECUTION_STATE_SUCCEEDED, event.execution_finished.error.message
    return given, skipped


def tone(rate=44_100) -> bytes:
    times = np.arange(rate) / rate
    samples = np.repeat((12_000 * np.sin(2 * math.pi * 440 * times)).astype("<i2"), 2)
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


async def test_what_a_recorder_gives_comes_in_the_form_that_its_reader_takes(mesh, tmp_path) -> None:
    path = written(
        tmp_path, "hear.mlab", ["id: mic, type: ui.audio-recorder", "id: ear, type: test.ear"],
        ["from: mic.audio, to: ear.audio"],
    )  # fmt: skip
    recording = Value(media=MediaValue(type=MEDIA_TYPE_AUDIO, inline=tone()))
    given, _ = await ended(mesh, path, {"mic.audio": recording})
    assert given["mic", "audio"].media.ref.metadata.sample_rate_hz == 44_100
    facts = plain_of(given["ear", "facts"].json)
    assert (facts["sampleRate"], facts["channels"]) == (16_000, 1)
    assert facts["duration"] == pytest.approx(1, abs=0.01)
    assert given["ear-audio", "audio"].media.ref.metadata.mime_type == "audio/wav"


async def test_photos_in_a_list_go_through_a_flow_in_a_flow_and_a_branch(mesh, tmp_path) -> None:
    small = [
        "id: photos, type: ui.file-upload",
        "id: scale, type: mediamesh.image-converter, forEach: {pin: image, parallel: 2}, params: {width: 64}",
        "id: scaled, type: ui.stream-console",
    ]
    written(
        tmp_path,
        "parts/small.mlab",
        small,
        ["from: photos.file, to: scale.image", "from: scale.image, to: scaled.input"],
    )
    path = written(
        tmp_path,
        "album.mlab",
        [
            "id: all, type: ui.file-upload",
            "id: small, flow: parts/small.mlab",
            "id: few, type: ui.stream-console",
            "id: many, type: ui.stream-viewer",
        ],
        [
            "from: all.file, to: small.photos",
            "from: small.scaled, to: few.input, when: len(value) < 3",
            "from: small.scaled, to: many.input, when: len(small.scaled) >= 3",
        ],
    )
    place = MediaPlace(workspace_id="default", flow_id="album", execution_id="uploads", node_id="all", pin_name="file")
    stored = [
        await mesh.media.upload((PHOTOS / name).read_bytes(), media_type=MEDIA_TYPE_IMAGE, place=place)
        for name in ("cat.jpg", "coffee.jpg")
    ]
    album = json_format.Parse(json.dumps([to_object(photo) for photo in stored]), struct_pb2.Value())
    given, skipped = await ended(mesh, path, {"all.file": Value(json=album)})
    shown = plain_of(given["few", "input"].json)
    assert [photo["ref"]["metadata"]["width"] for photo in shown] == [64, 64]
    assert shown[0]["ref"]["url"] != shown[1]["ref"]["url"]
    assert skipped == ["many"]
