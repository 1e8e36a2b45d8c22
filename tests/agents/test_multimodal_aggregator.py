from __future__ import annotations

import asyncio
import math
from typing import ClassVar

import pytest
from google.protobuf import json_format, struct_pb2
from google.rpc import status_pb2

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.pins import to_value
from mediamesh.agent.testing import gather
from mediamesh.agents.multimodal_aggregator import MultimodalAggregator
from mediamesh.agents.multimodal_aggregator.patience import Patience
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Progress, Snapshot, TextContent
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.wire.errors import InvalidRequest, Overloaded

CLASSES = [{"label": "tabby", "index": 281, "probability": 0.75}]
PINS = {pin.name: pin for pin in MultimodalAggregator().describe().inputs}


@pytest.fixture(scope="module")
async def client():
    async with (
        serving_agents(AgentSettings(), MultimodalAggregator()) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield AgentClient(channel)


def snapshot(data) -> Chunk:
    return Chunk(snapshot=Snapshot(data=json_format.ParseDict(data, struct_pb2.Value())))


def frame(time: float, **more) -> tuple[str, Chunk]:
    return "video_stream", snapshot({"type": "frame", "time": time, "objects": [], **more})


def words(end: float, text: str, *, start: float = 0.0, segment: int = 0, final: bool = True) -> tuple[str, Chunk]:
    spoken = [{"text": word, "start": start + number} for number, word in enumerate(text.split())]
    told = {"type": "transcript", "segment": segment, "start": start, "end": end, "final": final, "text": text}
    return "audio_stream", snapshot({**told, "words": spoken})


async def run(client, *chunks, image=None, pins=("audio_stream", "video_stream"), **params):
    """Feed the chunks one after the other, then the ends, and return the outputs."""
    opening = OpenRun(agent_id="mediamesh.multimodal-aggregator", stream_inputs=pins)
    if image is not None:
        opening.inputs["image_results"].CopyFrom(to_value(PINS["image_results"], image))
    opening.params.update(params)
    sequences = dict.fromkeys(PINS, 0)
    frames = []
    for pin, chunk in chunks:
        sequences[pin] += 1
        chunk.sequence_number = sequences[pin]
        frames.append(RunRequest(chunk=PinChunk(pin=pin, chunk=chunk)))
    frames += [RunRequest(end=PinEnd(pin=pin)) for pin in pins]
    outputs = await gather(client.run(opening, frames, timeout=20))
    return [json_format.MessageToDict(one.snapshot.data) for one in outputs["combined_stream"]], outputs["summary"]


async def test_image_sound_and_video_are_one_stream_in_the_order_of_media_time(client) -> None:
    chunks = [frame(time / 10) for time in range(10)] + [words(0.45, "one"), words(0.85, "two", segment=1)]
    combined, summary = await run(client, *chunks, image=CLASSES)
    assert [one["time"] for one in combined] == sorted([0, 0.45, 0.85, *(time / 10 for time in range(10))])
    assert {one["type"] for one in combined} == {"combined"}
    assert combined[0]["result"] == {"type": "image", "time": 0, "classification": CLASSES}
    assert [one["result"]["text"] for one in combined if one["source"] == "audio"] == ["one", "two"]
    assert not any(one["late"] for one in combined)
    assert summary["items"] == len(combined)
    assert summary["late"] == 0
    assert summary["sources"]["video"] == {"items": 10, "late": 0, "first": 0, "last": 0.9}


async def test_what_comes_too_late_is_marked_and_not_lost(client) -> None:
    chunks = [*(frame(float(second)) for second in range(10)), words(3.5, "late words")]
    combined, summary = await run(client, *chunks, max_delay=2, patience=0)
    [late] = [one for one in combined if one["late"]]
    assert (late["time"], late["result"]["text"]) == (3.5, "late words")
    assert (summary["late"], summary["sources"]["audio"]["late"]) == (1, 1)
    assert summary["held_most"] <= 4


async def test_an_input_that_is_slow_is_waited_for_however_far_the_other_is(client) -> None:
    chunks = [*(frame(float(second)) for second in range(10)), words(3.5, "slow words")]
    combined, summary = await run(client, *chunks, max_delay=2)
    assert [one["time"] for one in combined] == [0, 1, 2, 3, 3.5, 4, 5, 6, 7, 8, 9]
    assert summary["late"] == 0


async def test_no_more_results_are_held_than_the_bound_says(client) -> None:
    chunks = [*(frame(float(second)) for second in range(10)), words(3.5, "late words")]
    combined, summary = await run(client, *chunks, max_items=4)
    assert [one["time"] for one in combined if one["late"]] == [3.5]
    assert summary["held_most"] == 4


class Clock:
    """A clock that goes only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_input_is_silent_after_so_much_time_spent_waiting() -> None:
    clock = Clock()
    patience = Patience(["audio", "video"], 5.0, clock)
    with patience.waiting() as limit:
        assert limit == 5
        clock.now += 3
    clock.now += 100  # nobody waits
    patience.heard("video")
    with patience.waiting() as limit:
        assert limit == 2
        clock.now += 2
    assert patience.silent() == ["audio"]
    with patience.waiting() as limit:
        assert limit == 3
        clock.now += 3
    assert patience.silent() == ["video"]  # audio was told
    with patience.waiting() as limit:
        assert limit is None
    patience.heard("audio")
    patience.ended("video")
    with patience.waiting() as limit:
        assert limit == 5


async def test_partial_transcripts_are_passed_on_when_asked_for(client) -> None:
    chunks = [words(2.0, "a b", final=False), words(3.0, "a b c", final=False), words(3.0, "a b c d")]
    finals, _ = await run(client, *chunks)
    assert [one["result"]["text"] for one in finals] == ["a b c d"]
    everything, _ = await run(client, *chunks, partials=True)
    assert [one["result"]["final"] for one in everything] == [False, False, True]


async def test_a_partial_transcript_lets_frames_go_up_to_its_last_word(client) -> None:
    opening = OpenRun(agent_id="mediamesh.multimodal-aggregator", stream_inputs=["audio_stream", "video_stream"])
    done = asyncio.Event()

    async def frames():
        for number, (_, chunk) in enumerate([frame(1.0), frame(1.9)], 1):
            chunk.sequence_number = number
            yield RunRequest(chunk=PinChunk(pin="video_stream", chunk=chunk))
        _, chunk = words(2.5, "one two", start=0.5, final=False)  # the last word began at 1.5
        chunk.sequence_number = 1
        yield RunRequest(chunk=PinChunk(pin="audio_stream", chunk=chunk))
        await done.wait()
        for pin in opening.stream_inputs:
            yield RunRequest(end=PinEnd(pin=pin))

    times = []
    async for response in client.run(opening, frames(), timeout=10):
        if response.HasField("chunk"):
            times.append(response.chunk.chunk.snapshot.data.struct_value["time"])
            # 1.0 goes before the end, 1.9 waits for the word.
            done.set()
    assert times == [1.0, 1.9]


@pytest.mark.parametrize("pin", ["audio_stream", "video_stream"])
async def test_an_input_that_is_not_connected_holds_nothing_back(client, pin) -> None:
    chunks = [words(1.0, "x"), words(2.0, "y")] if pin == "audio_stream" else [frame(1.0), frame(2.0)]
    combined, summary = await run(client, *chunks, pins=(pin,), max_delay=3600, patience=3600)
    assert [one["time"] for one in combined] == [1.0, 2.0]
    assert summary["held_most"] <= 1


async def test_an_image_alone_is_a_stream_of_one(client) -> None:
    combined, summary = await run(client, image=CLASSES, pins=())
    assert [one["source"] for one in combined] == ["image"]
    assert summary["items"] == 1


async def test_several_images_each_keep_their_result(client) -> None:
    combined, _ = await run(client, image=[CLASSES, {"time": 4, "classification": CLASSES}], pins=())
    assert [one["time"] for one in combined] == [0, 4]


async def test_chunks_that_only_tell_about_a_stream_are_no_results(client) -> None:
    progress = ("video_stream", Chunk(progress=Progress(percent=10)))
    combined, _ = await run(client, progress, frame(1.0))
    assert len(combined) == 1


NAN = Chunk(snapshot=Snapshot(data=struct_pb2.Value(number_value=0)))
NAN.snapshot.data.struct_value.update({"type": "frame", "time": math.nan})
NO_RESULTS = {
    "text": (Chunk(content=TextContent(text="hello")), "is no snapshot of an object but content"),
    "a list": (snapshot([1, 2]), "is no snapshot of an object"),
    "a frame without time": (snapshot({"type": "frame"}), "has no time"),
    "before the begin": (snapshot({"type": "frame", "time": -1}), "has no time"),
    "time in words": (snapshot({"type": "frame", "time": "soon"}), "has no time"),
    "a time that is no number": (NAN, "has no time"),
    "words without end": (snapshot({"type": "transcript", "start": 1}), "has no end"),
}


@pytest.mark.parametrize(("chunk", "text"), NO_RESULTS.values(), ids=NO_RESULTS)
async def test_a_chunk_that_is_no_result_is_named_with_its_pin_and_place(client, chunk, text) -> None:
    with pytest.raises(InvalidRequest, match=text) as raised:
        await run(client, frame(0.0), ("video_stream", chunk))
    assert raised.value.violations[0][0] == "inputs.video_stream"
    assert "chunk 2" in str(raised.value)


@pytest.mark.parametrize("given", ["text", 5, [5], [[1]], None])
async def test_image_results_that_are_none_are_refused(client, given) -> None:
    opening = OpenRun(agent_id="mediamesh.multimodal-aggregator")
    opening.inputs["image_results"].CopyFrom(to_value(PINS["image_results"], given))
    with pytest.raises(InvalidRequest, match="classification"):
        await gather(client.run(opening, timeout=10))


async def test_the_failure_of_a_producer_is_the_failure_of_the_run(client) -> None:
    error = Overloaded("The transcriber has no room.")
    status = status_pb2.Status(code=error.to_status().code, message=error.text)
    with pytest.raises(Exception, match="no room"):
        await run(client, frame(0.0), ("audio_stream", Chunk(error=status)))


class SlowReader:
    """Stands for a run whose reader takes nothing until it is let."""

    inputs: ClassVar[dict[str, object]] = {}
    params: ClassVar = {"max_delay": 0, "partials": False, "patience": 0}

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.taken = self.given = 0

    def whole(self, param):
        return 1

    async def stream(self, pin):
        for number in range(100):
            self.taken += 1
            yield frame(float(number))[1]
            await asyncio.sleep(0)

    async def emit(self, pin, chunk):
        await self.reading.wait()
        self.given += 1


async def test_while_nobody_reads_nothing_is_taken_in() -> None:
    run = SlowReader()
    task = asyncio.ensure_future(MultimodalAggregator().process(run))  # type: ignore[arg-type]
    for _ in range(1000):
        await asyncio.sleep(0)
    assert run.taken <= 6  # of each input what goes out, what waits and what comes in
    run.reading.set()
    await task
    assert run.given == run.taken == 200
