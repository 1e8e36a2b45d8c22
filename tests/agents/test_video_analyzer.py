"""The analyzer over the wire, with a model that sees what the test tells it to."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from google.protobuf import json_format

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.testing import gather
from mediamesh.agents.video_analyzer import VideoAnalyzer
from mediamesh.agents.video_analyzer.choice import Choice
from mediamesh.agents.video_analyzer.course import Course
from mediamesh.agents.video_analyzer.detection import ObjectDetection
from mediamesh.agents.video_analyzer.latency import Latency
from mediamesh.agents.video_analyzer.video import Video
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.ranged_file import ranged_file
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MeshError, Unavailable, UnsupportedMediaType
from tests.agents import videos
from tests.pace import within

pytestmark = pytest.mark.slow

IN_FLIGHT = 4
NOTHING = np.zeros((1, 0, 6), np.float32)


class Model:
    """Stands for the inference server: answers what ``seen`` holds, notes what is asked and how much at once."""

    def __init__(self, seen: np.ndarray[Any, Any] = NOTHING) -> None:
        self.seen = seen
        self.asked: list[np.ndarray[Any, Any]] = []
        self.now = self.most = self.cancelled = 0
        self.is_full, self.is_left = asyncio.Event(), asyncio.Event()

    async def infer(self, model, inputs, *, timeout=None):
        self.asked.append(inputs["frames"])
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == IN_FLIGHT:
            self.is_full.set()
        try:
            await self.work(len(self.asked) - 1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
            if not self.now:
                self.is_left.set()
        return {"objects": self.seen}

    async def work(self, number: int) -> None:
        await asyncio.sleep(0)


def analyzer(model: Model, **settings) -> VideoAnalyzer:
    given = {"max_videos": 4, "in_flight": IN_FLIGHT, "max_pixels": 1_000_000, **settings}
    return VideoAnalyzer(model, detector="detector", classifier="classifier", **given)  # type: ignore[arg-type]


@asynccontextmanager
async def served(model: Model, **settings):
    async with (
        serving_agents(AgentSettings(), analyzer(model, **settings)) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield AgentClient(channel)


def opening(data: bytes, **params) -> OpenRun:
    run = OpenRun(agent_id="mediamesh.video-analyzer")
    run.inputs["video"].media.CopyFrom(MediaValue(type=MediaType.MEDIA_TYPE_VIDEO, inline=data))
    run.params.update(params)
    return run


def told(outputs) -> list[dict[str, Any]]:
    return [json_format.MessageToDict(chunk.snapshot.data) for chunk in outputs["analysis_stream"]]


async def analysed(model: Model, data: bytes, **params) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the results of the frames, and the summary."""
    failure: MeshError | None = None
    outputs: dict[str, Any] = {}
    async with served(model) as client:
        try:
            outputs = await gather(client.run(opening(data, **params), timeout=100))
        except MeshError as error:  # raised in here it would leave as a group
            failure = error
    if failure is not None:
        raise failure
    return told(outputs), outputs["summary"]


async def test_every_frame_has_a_result_with_its_time_and_boxes_in_its_own_pixels() -> None:
    # In the small picture of 416 by 312: twice the same bicycle, one that is not likely enough, and one person.
    seen = [[0, 0, 104, 156, 0.9, 1], [4, 4, 104, 156, 0.8, 1], [200, 0, 250, 50, 0.3, 1], [208, 156, 500, 400, 0.5, 0]]
    frames, summary = await analysed(Model(np.array([seen], np.float32)), videos.encoded([videos.blank(64, 48)] * 10))
    assert [(frame["index"], round(frame["time"], 6)) for frame in frames] == [(n, round(n / 25, 6)) for n in range(10)]
    assert {key: value for key, value in frames[3].items() if key != "time"} == {
        "type": "frame",
        "index": 3,
        "width": 64,
        "height": 48,
        "analysis": "object_detection",
        "dropped": 0,
        "objects": [
            {"label": "bicycle", "class": 1, "score": 0.9, "box": [0, 0, 16, 24]},
            {"label": "person", "class": 0, "score": 0.5, "box": [32, 24, 32, 24]},
        ],
    }
    latency = summary.pop("latency")
    assert 0 <= latency["p50"] <= latency["p90"] <= latency["p99"] < 10
    assert summary == {
        "analysis": "object_detection",
        "duration": pytest.approx(0.4),
        "fps": 25,
        "frames": 10,
        "analysed": 10,
        "dropped": 0,
        "thinned": 0,
        "damaged": 0,
        "objects": [
            {"label": label, "frames": 10, "at_once": 1, "score": score, "first": 0, "last": pytest.approx(0.36)}
            for label, score in (("bicycle", 0.9), ("person", 0.5))
        ],
    }


async def test_the_model_gets_the_upright_frame_in_bytes_with_black_around_it() -> None:
    model = Model()
    await analysed(model, videos.turned(videos.encoded([videos.marked(640, 352)])))
    (tensor,) = model.asked
    assert tensor.dtype == np.uint8
    assert tensor.shape == (1, 3, 416, 256)  # 229 pixels wide, filled up to 256
    assert tensor[0, :, 10:200, 120:225].min() > 240
    assert tensor[0, :, 220:, :].max() < 15
    assert not tensor[0, :, :, 229:].any()


async def test_several_frames_are_asked_at_once_and_told_in_their_order() -> None:
    class Backwards(Model):
        """Answers a handful of requests in the opposite order, once all of them are there."""

        def __init__(self) -> None:
            super().__init__()
            self.turns = [asyncio.Event() for _ in range(40)]

        async def work(self, number: int) -> None:
            last = number // IN_FLIGHT * IN_FLIGHT + IN_FLIGHT - 1
            if number != last:
                await self.turns[number].wait()
            if number % IN_FLIGHT:
                self.turns[number - 1].set()

    model = Backwards()
    frames, _ = await analysed(model, videos.encoded([videos.blank(64, 48)] * 40))
    assert [frame["index"] for frame in frames] == list(range(40))
    assert model.most == IN_FLIGHT


async def test_a_reader_that_is_slow_holds_up_the_decoding() -> None:
    model, go_on, told_of = Model(), asyncio.Event(), []
    stuck = asyncio.Event()

    async def emit(pin, chunk) -> None:
        told_of.append(chunk)
        stuck.set()
        await go_on.wait()

    async def progress(percent, message) -> None:
        pass

    run = SimpleNamespace(
        params={"analysis_type": "object_detection"}, time_left=lambda: None, emit=emit, progress=progress
    )
    video = Video(BytesIO(videos.encoded([videos.blank(64, 48)] * 30)), max_pixels=10_000)
    video.open()
    course = Course(
        run,  # type: ignore[arg-type]
        video,
        ObjectDetection("detector", min_score=0.5),
        Choice(max_fps=0, paced=False),
        inference=model,  # type: ignore[arg-type]
        decoding=asyncio.Semaphore(1),
        in_flight=IN_FLIGHT,
    )
    going = asyncio.ensure_future(course.go())
    await stuck.wait()
    while len(model.asked) < IN_FLIGHT:  # noqa: ASYNC110 - a thread decodes what is asked next
        await asyncio.sleep(0.001)
    for _ in range(200):  # whatever else could happen has time to
        await asyncio.sleep(0.001)
    assert (len(told_of), len(model.asked)) == (1, IN_FLIGHT)
    go_on.set()
    assert (await going)["analysed"] == len(told_of) == 30
    video.close()


async def test_a_cancelled_run_asks_no_more_and_leaves_the_model_within_a_second() -> None:
    class NeverAnswers(Model):
        async def work(self, number: int) -> None:
            await asyncio.Event().wait()

    model = NeverAnswers()
    async with served(model) as client:
        run = asyncio.ensure_future(gather(client.run(opening(videos.encoded([videos.blank(64, 48)] * 300)))))
        await model.is_full.wait()
        run.cancel()
        async with within(1):
            await model.is_left.wait()
        assert (model.cancelled, len(model.asked)) == (IN_FLIGHT, IN_FLIGHT)


async def test_a_run_that_waits_for_a_silent_store_is_cancelled_as_soon() -> None:
    # Its head comes first, and it is more than the file fetches at once.
    data = videos.encoded((videos.noise(640, 384, seed) for seed in range(40)), movflags="frag_keyframe+empty_moov")
    assert len(data) > 1 << 20
    model, asked = Model(), asyncio.Event()

    async def fetch(offset: int, limit: int) -> bytes:
        if offset:
            asked.set()
            await asyncio.Event().wait()
        return data[offset : offset + limit]

    params = {"analysis_type": "object_detection", "max_fps": 0, "min_score": 0.5, "pace": "fast"}

    async def emit(pin, chunk) -> None:
        pass

    run = SimpleNamespace(
        params=params, time_left=lambda: None, emit=emit, open=lambda pin: ranged_file(fetch, len(data))
    )
    going = asyncio.ensure_future(analyzer(model).process(run))  # type: ignore[arg-type]
    await asked.wait()
    for _ in range(100):  # until the thread has come to what is not there
        await asyncio.sleep(0.002)
    assert len(model.asked) < 40
    going.cancel()
    async with within(1):
        with pytest.raises(asyncio.CancelledError):
            await going


async def test_more_videos_than_may_be_open_wait_for_their_turn() -> None:
    model = Model()
    data = videos.encoded([videos.blank(64, 48)] * 20)
    async with served(model, max_videos=2) as client:
        results = await asyncio.gather(*(gather(client.run(opening(data), timeout=60)) for _ in range(8)))
    assert [len(told(outputs)) for outputs in results] == [20] * 8
    assert model.most <= 2 * IN_FLIGHT


async def test_max_fps_thins_the_frames_and_the_summary_says_so() -> None:
    frames, summary = await analysed(Model(), videos.encoded([videos.blank(64, 48)] * 50), max_fps=5)
    assert [frame["index"] for frame in frames] == list(range(0, 50, 5))
    assert {frame["dropped"] for frame in frames} == {0}
    assert (summary["frames"], summary["analysed"], summary["thinned"], summary["dropped"]) == (50, 10, 40, 0)


@pytest.mark.stack
async def test_a_video_at_its_own_pace_takes_its_time_and_drops_what_is_late_but_tells_it() -> None:
    class Slow(Model):
        async def work(self, number: int) -> None:
            await asyncio.sleep(1.0)

    data = videos.encoded([videos.blank(64, 48)] * 75)
    begin = time.monotonic()
    frames, summary = await analysed(Slow(), data, pace="media")
    assert time.monotonic() - begin > 2.9
    assert summary["frames"] == 75
    assert summary["analysed"] == len(frames) < 50
    assert summary["dropped"] == 75 - len(frames)
    # The gaps between results are what each says was dropped.
    indices = [-1, *(frame["index"] for frame in frames)]
    gaps = [after - before - 1 for before, after in pairwise(indices)]
    assert [frame["dropped"] for frame in frames] == gaps


def test_shares_of_latencies_are_those_of_the_times_noted() -> None:
    latency = Latency()
    assert latency.told() == {"p50": 0, "p90": 0, "p99": 0}
    for milliseconds in [*range(1, 100), 1_000_000]:
        latency.add(milliseconds / 1000)
    assert latency.told() == {"p50": 0.05, "p90": 0.09, "p99": 0.099}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"analysis_type": "poetry"}, "analysis_type"),
        ({"pace": "slow"}, "pace"),
        ({"max_fps": -1}, "at least 0"),
        ({"min_score": 2}, "at most 1"),
    ],
)
async def test_params_that_are_none_are_refused(params, text) -> None:
    with pytest.raises(InvalidRequest, match=text):
        await analysed(Model(), b"x", **params)


async def test_what_is_no_video_is_refused_as_such() -> None:
    with pytest.raises(UnsupportedMediaType, match="no picture stream"):
        await analysed(Model(), videos.sound())
    data = videos.encoded([videos.noise(64, 48, 1)])
    begin = data.index(b"mdat") + 4
    with pytest.raises(MediaDecodeFailed):
        await analysed(Model(), data[:begin] + bytes(2000) + data[begin + 2000 :])


async def test_results_before_and_behind_damage_come_and_the_damage_is_told() -> None:
    data = videos.encoded([videos.noise(64, 48, seed) for seed in range(60)])
    middle = len(data) // 2
    frames, summary = await analysed(Model(), data[:middle] + bytes(3000) + data[middle + 3000 :])
    assert summary["damaged"] > 0
    assert (frames[0]["time"], frames[-1]["time"]) == (0, pytest.approx(59 / 25))


async def test_an_inference_server_that_goes_away_ends_the_run_with_its_own_error() -> None:
    class GoesAway(Model):
        async def work(self, number: int) -> None:
            if number == 5:
                raise Unavailable("the inference server is gone")

    with pytest.raises(Unavailable, match="is gone"):
        await analysed(GoesAway(), videos.encoded([videos.blank(64, 48)] * 50))


@pytest.mark.stack
async def test_ten_minutes_of_video_take_no_more_memory_than_one() -> None:
    def pictures(seconds: int):
        return (videos.marked(160, 96) for _ in range(10 * seconds))

    long, process = videos.encoded(pictures(600), fps=10), psutil.Process()
    model, count = Model(), 0
    async with served(model) as client:
        await gather(client.run(opening(videos.encoded(pictures(60), fps=10)), timeout=60))
        before = most = process.memory_info().rss
        async for response in client.run(opening(long), timeout=100):
            count += response.HasField("chunk")
            model.asked.clear()
            most = max(most, process.memory_info().rss)
    assert count == 6000
    assert model.most <= IN_FLIGHT
    assert most - before < 32 << 20
