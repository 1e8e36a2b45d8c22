"""The analyzer with its real models on real videos, which it reads from the real media service."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf import json_format

from mediamesh.agent.testing import gather
from mediamesh.agents.app import app as agents_app
from mediamesh.agents.settings import Settings as AgentsSettings
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.media import MediaClient
from mediamesh.kit.serve import serving
from tests.inference.conftest import inference_server

pytestmark = pytest.mark.stack

PLACE = MediaPlace(workspace_id="w", flow_id="f", execution_id="videos", node_id="upload", pin_name="file")


@pytest.fixture(scope="module")
async def client(pulled_repository, media_address):
    """A client of an agents server whose inference server has what the analyzer needs."""
    repository = pulled_repository("nanodet_int8", "efficientnet_lite0_int8")
    async with inference_server(repository) as inference_port:
        settings = AgentsSettings(inference_address=f"127.0.0.1:{inference_port}", media_address=media_address)
        async with (
            agents_app(settings) as part,
            serving(settings, part) as port,
            connect(f"127.0.0.1:{port}") as channel,
        ):
            yield AgentClient(channel)


@pytest.fixture(scope="module")
async def stored(model_store, media_address):
    """A function that returns one of the sample videos as a value in the store."""
    model_store.pull(model_store.manifest.choose(["video_samples"]))
    folder = model_store.files("video_samples")

    async def store(name: str) -> MediaValue:
        async with connect(media_address) as channel:
            data = (folder / name).read_bytes()
            return await MediaClient(channel).upload(data, media_type=MediaType.MEDIA_TYPE_VIDEO, place=PLACE)

    return store


def opening(video: MediaValue, **params) -> OpenRun:
    run = OpenRun(agent_id="mediamesh.video-analyzer")
    run.inputs["video"].media.CopyFrom(video)
    run.params.update(params)
    return run


async def analysed(client, video: MediaValue, **params) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    outputs = await gather(client.run(opening(video, **params), timeout=100))
    frames = [json_format.MessageToDict(chunk.snapshot.data) for chunk in outputs["analysis_stream"]]
    return frames, outputs["summary"]


async def test_people_cars_and_bicycles_are_found_in_a_street(client, stored) -> None:
    frames, summary = await analysed(client, await stored("bikes.mp4"), max_fps=12.5)
    assert [round(frame["time"], 3) for frame in frames] == [round(number * 0.08, 3) for number in range(125)]
    assert {(frame["width"], frame["height"], frame["analysis"]) for frame in frames} == {
        (640, 272, "object_detection")
    }
    counts = {entry["label"]: entry["frames"] for entry in summary["objects"]}
    assert counts["person"] > 30
    assert counts["car"] > 30
    assert counts["bicycle"] > 5
    (cyclist,) = [frame for frame in frames if abs(frame["time"] - 5.04) < 0.01]
    person = cyclist["objects"][0]
    left, top, width, height = person["box"]
    assert (person["label"], person["class"]) == ("person", 0)
    assert person["score"] > 0.6
    assert left < 415 < left + width  # in the midst of the picture, from top to bottom
    assert top < 30
    assert top + height > 240


async def test_scenes_are_classified_with_probabilities_in_order(client, stored) -> None:
    frames, summary = await analysed(
        client, await stored("bikes.mp4"), analysis_type="scene_classification", max_fps=6.25
    )
    assert len(frames) == summary["analysed"] == 63
    for frame in frames:
        probabilities = [label["probability"] for label in frame["labels"]]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
    best = {label["label"] for frame in frames for label in frame["labels"][:2]}
    assert best & {"mountain bike", "unicycle", "bicycle-built-for-two", "jinrikisha"}


async def test_activities_follow_from_motion_and_objects(client, stored) -> None:
    frames, summary = await analysed(
        client, await stored("bikes.mp4"), analysis_type="activity_recognition", max_fps=12.5
    )
    assert frames[0]["motion"] == 0
    assert max(frame["motion"] for frame in frames) > 0.3
    assert all(0 <= frame["activity"]["score"] <= 1 for frame in frames)
    spans = summary["activities"]
    assert {"traffic", "person moving"} & {span["label"] for span in spans}
    assert spans[0]["start"] == 0
    assert spans[-1]["end"] == frames[-1]["time"]
    assert all(one["end"] < other["start"] for one, other in pairwise(spans))


async def test_a_run_that_is_cancelled_ends_and_others_go_on(client, stored) -> None:
    video = await stored("bigbuckbunny.mp4")
    other = asyncio.ensure_future(analysed(client, video, max_fps=5))
    run = client.run(opening(video))
    async for response in run:
        if response.HasField("chunk"):
            break
    await run.aclose()
    frames, _ = await other
    assert len(frames) == 27
