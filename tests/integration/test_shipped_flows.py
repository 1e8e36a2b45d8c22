"""The flows that ship, on real media, through the door of a whole mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_SUCCEEDED
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_AUDIO, MEDIA_TYPE_IMAGE, MEDIA_TYPE_VIDEO, MediaValue
from mediamesh.wire.json import to_object
from tests.integration.conftest import CAT, EXAMPLES

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def flow(name) -> FlowSource:
    path = EXAMPLES / "flows" / name
    return FlowSource(name=path.name, yaml=path.read_text())


def media(kind, path: Path) -> Value:
    return Value(media=MediaValue(type=kind, inline=path.read_bytes()))


@pytest.fixture
def speech(model_store):
    model_store.pull(model_store.manifest.choose(["speech_samples"]))
    return model_store.files("speech_samples")


@pytest.fixture
def bikes(model_store):
    model_store.pull(model_store.manifest.choose(["video_samples"]))
    return model_store.files("video_samples") / "bikes.mp4"


async def finished(door, source, inputs):
    """Run a flow and return its events."""
    events = [event async for event in door.flows.run(source, inputs, timeout=200)]
    end = events[-1].execution_finished
    assert end.state == EXECUTION_STATE_SUCCEEDED, end.error.message
    return events


def shown(events, node):
    """Return what a sink was given: values, and data of snapshots."""
    found = []
    for event in events:
        if event.node_id == node and event.HasField("node_chunk"):
            found.append(to_object(event.node_chunk.chunk.snapshot)["data"])
        elif event.node_id == node and event.HasField("node_output"):
            found.append(to_object(event.node_output.value)["json"])
    return found


def words_of(texts) -> list[str]:
    return "".join(c for c in " ".join(texts).lower() if c.isalpha() or c.isspace()).split()


async def test_the_multimodal_test_hears_every_word_while_it_goes_on(door, speech) -> None:
    events = await finished(
        door, flow("multimodal-test.mlab"), {"audio.file": media(MEDIA_TYPE_AUDIO, speech / "beckett.wav")}
    )
    said = shown(events, "console")
    assert all(one["type"] == "transcript" for one in said)
    finals = {one["segment"]: one for one in said if one["final"]}
    assert words_of(one["text"] for one in finals.values()) == (
        ["ever", "tried", "ever", "failed", "no", "matter", "try", "again", "fail", "again", "fail", "better"]
    )
    starts = [word["start"] for segment in sorted(finals) for word in finals[segment]["words"]]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < 1
    assert len({one["label"] for one in shown(events, "labels")[0]}) == 5


async def test_the_showcase_merges_what_it_sees_and_hears_by_media_time(door, speech, bikes) -> None:
    inputs = {
        "photo.file": media(MEDIA_TYPE_IMAGE, CAT),
        "recorder.audio": media(MEDIA_TYPE_AUDIO, speech / "beckett.wav"),
        "video.file": media(MEDIA_TYPE_VIDEO, bikes),
    }
    events = await finished(door, flow("showcase.mlab"), inputs)
    combined = shown(events, "viewer")
    assert {one["source"] for one in combined} == {"image", "audio", "video"}
    in_time = [one["time"] for one in combined if not one["late"]]
    assert in_time == sorted(in_time)
    frames = [one["result"] for one in combined if one["source"] == "video"]
    assert len(frames) == 250
    seen = {thing["label"] for frame in frames for thing in frame["objects"]}
    assert {"person", "car"} <= seen
    (photo,) = [one["result"] for one in combined if one["source"] == "image"]
    assert "cat" in photo["classification"][0]["label"]
    heard = words_of(one["result"]["text"] for one in combined if one["source"] == "audio")
    assert heard[-2:] == ["fail", "better"]
    # What streams can be read elsewhere too, while the run goes on.
    assert {event.stream_available.pin for event in events if event.HasField("stream_available")} >= {
        "transcript",
        "analysis_stream",
        "combined_stream",
    }
