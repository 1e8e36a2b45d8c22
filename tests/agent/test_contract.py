from __future__ import annotations

import asyncio

import pytest
from google.protobuf import json_format, struct_pb2

from mediamesh.agent.testing import gather
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.agent.v1.value_pb2 import StreamReference, Value
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaType, MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.wire.errors import (
    AgentFailed,
    FailedPrecondition,
    InvalidRequest,
    MediaTooLarge,
    NotFound,
    Overloaded,
    UnsupportedMediaType,
)

INPUTS = """[
  {name: text, type: string, optional: true, constraints: {enum: [a, b], maxSize: 1}},
  {name: number, type: number, optional: true, constraints: {minimum: 1, maximum: 3}},
  {name: flag, type: boolean, optional: true},
  {name: json, type: json, optional: true},
  {name: bytes, type: binary, optional: true, constraints: {maxSize: 3}},
  {name: image, type: image, optional: true, constraints: {mimeType: "image/jpeg,image/png", maxSize: 1KB, width: 640}},
  {name: sound, type: audio, optional: true, constraints: {mimeType: audio/*, sampleRate: 16000, maxDuration: 60}},
  {name: words, type: stream, optional: true}]"""


def image(size=1000, width=640, kind=MediaType.MEDIA_TYPE_IMAGE) -> Value:
    facts = MediaFacts(mime_type="image/png", width=width, height=480)
    return Value(media=MediaValue(type=kind, ref=MediaReference(url="s3://media/x", size_bytes=size, metadata=facts)))


def sound() -> Value:
    facts = MediaFacts(mime_type="audio/wav", sample_rate_hz=16000, duration_seconds=60)
    reference = MediaReference(url="s3://media/x", metadata=facts)
    return Value(media=MediaValue(type=MediaType.MEDIA_TYPE_AUDIO, ref=reference))


def params(**values) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())


def chunk(number: int, text: str = "x", pin: str = "words") -> RunRequest:
    return RunRequest(chunk=PinChunk(pin=pin, chunk=Chunk(sequence_number=number, content=TextContent(text=text))))


def end(pin: str = "words") -> RunRequest:
    return RunRequest(end=PinEnd(pin=pin))


async def test_an_agent_sees_its_inputs_as_python_values(serve, agent) -> None:
    async def process(run):
        assert run.inputs["image"].ref.url == "s3://media/x"
        assert "flag" not in run.inputs
        return {
            "seen": {name: run.inputs[name] for name in ("text", "number", "json")} | {"context": run.context.node_id}
        }

    async with serve(agent(process, inputs=INPUTS, outputs="[{name: seen, type: json}]")) as client:
        inputs = {
            "text": Value(text="a"),
            "number": Value(number=2),
            "json": Value(json=json_format.ParseDict({"list": [1, None, "x"]}, struct_pb2.Value())),
            "image": image(),
            "sound": sound(),
        }
        opening = OpenRun(agent_id="test.agent", inputs=inputs)
        opening.context.node_id = "classify"
        outputs = await gather(client.run(opening))
    assert outputs == {"seen": {"text": "a", "number": 2, "json": {"list": [1, None, "x"]}, "context": "classify"}}


BAD_INPUTS = [
    ({"text": Value(number=1)}, InvalidRequest, "inputs.text", "takes string, got number"),
    ({"text": Value(text="c")}, InvalidRequest, "inputs.text", "must be one of a, b; is 'c'"),
    ({"json": Value(json=struct_pb2.Value(number_value=float("inf")))}, InvalidRequest, "inputs.json", "infinity or"),
    ({"image": image(kind=MediaType.MEDIA_TYPE_VIDEO)}, UnsupportedMediaType, "inputs.image", "takes image, got video"),
    ({"image": image(size=1001)}, MediaTooLarge, "inputs.image", "must be at most 1000 bytes, is 1001"),
    ({"image": image(width=641)}, InvalidRequest, "inputs.image", "width must be 640 px, is 641"),
    ({"words": Value(stream=StreamReference(stream_id="x"))}, InvalidRequest, "inputs.words", "must come as frames"),
    ({"typo": Value(text="a")}, InvalidRequest, "inputs.typo", "no such input; it has text, number"),
    (
        {"image": Value(media=MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, url="https://elsewhere/x.png"))},
        InvalidRequest, "inputs.image", "must be a reference",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "kind", "field", "text"), BAD_INPUTS)
async def test_a_bad_input_is_refused_before_the_agent_runs(serve, agent, inputs, kind, field, text) -> None:
    async def process(run):
        raise AssertionError("ran")

    async with serve(agent(process, inputs=INPUTS)) as client:
        with pytest.raises(kind) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent", inputs=inputs)))
    assert type(raised.value) is kind
    assert raised.value.violations[0][0] == field
    assert text in str(raised.value)


async def test_a_missing_input_and_a_bad_one_are_named_at_once(serve, agent) -> None:
    made = agent(None, inputs="[{name: a, type: string}, {name: b, type: number}, {name: c, type: stream}]")
    async with serve(made) as client:
        with pytest.raises(InvalidRequest) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent", inputs={"b": Value(text="")})))
    assert raised.value.violations == [
        ("inputs.b", "takes number, got string"),
        ("inputs.a", "is required"),
        ("inputs.c", "is required"),
    ]


PARAMS = """[{name: top_k, type: number, default: 5, constraints: {minimum: 1, maximum: 10}},
             {name: mode, type: string, constraints: {enum: [fast, good]}},
             {name: extra, type: json, optional: true}]"""


async def test_params_have_their_defaults_and_whole_numbers_are_ints(serve, agent) -> None:
    async def process(run):
        assert run.whole("top_k") == 5
        return {"seen": repr(dict(run.params))}

    async with serve(agent(process, params=PARAMS, outputs="[{name: seen, type: string}]")) as client:
        outputs = await gather(client.run(OpenRun(agent_id="test.agent", params=params(mode="fast"))))
    assert outputs == {"seen": "{'top_k': 5, 'mode': 'fast'}"}


@pytest.mark.parametrize(
    ("given", "field", "text"),
    [
        ({}, "params.mode", "is required"),
        ({"mode": "slow"}, "params.mode", "must be one of fast, good"),
        ({"mode": "fast", "top_k": 11}, "params.top_k", "must be at most 10, is 11"),
        ({"mode": "fast", "top_k": "many"}, "params.top_k", "takes number, got string"),
        ({"mode": "fast", "top_k": None}, "params.top_k", "takes number, got nothing"),
        ({"mode": "fast", "topk": 3}, "params.topk", "no such parameter; it has top_k, mode, extra"),
        ({"mode": "fast", "top_k": 2.5}, "params.top_k", "must be a whole number, is 2.5"),
    ],
)
async def test_a_bad_param_is_named_with_its_limit(serve, agent, given, field, text) -> None:
    async def process(run):
        run.whole("top_k")

    async with serve(agent(process, params=PARAMS)) as client:
        with pytest.raises(InvalidRequest) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent", params=params(**given))))
    assert raised.value.violations[0][0] == field
    assert text in str(raised.value)


async def test_params_have_no_infinities(serve, agent) -> None:
    opening = OpenRun(agent_id="test.agent")
    opening.params.fields["top_k"].number_value = float("inf")
    async with serve(agent(None, params=PARAMS)) as client:
        with pytest.raises(InvalidRequest, match="params: has a number that JSON has not"):
            await gather(client.run(opening))


async def test_describe_tells_all_agents_or_one(serve, agent) -> None:
    first = agent(None, id="test.first", inputs="[{name: a, type: image}]", outputs="[{name: b, type: json}]")
    async with serve(first, agent(None, id="test.second")) as client:
        everything = await client.describe()
        assert [manifest.id for manifest in everything.agents] == ["test.first", "test.second"]
        assert everything.capabilities.runtime == "mediamesh-python"
        assert list(everything.capabilities.input_modalities) == ["image"]
        assert [manifest.id for manifest in (await client.describe("test.second")).agents] == ["test.second"]
        with pytest.raises(NotFound, match="third"):
            await client.describe("test.third")


async def test_an_unknown_agent_is_not_found(serve, agent) -> None:
    async with serve(agent(None)) as client:
        with pytest.raises(NotFound, match=r"no agent 'test\.other' on this server; it has test\.agent"):
            await gather(client.run(OpenRun(agent_id="test.other")))


async def waits(run):
    async for _ in run.stream("words"):
        pass
    await asyncio.Event().wait()  # only a fault in the frames ends it


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([RunRequest(open=OpenRun(agent_id="test.agent"))], "open: comes first and only once"),
        ([chunk(2)], "must be 1 on pin words, is 2"),
        ([chunk(1), chunk(1)], "must be 2 on pin words, is 1"),
        ([chunk(1), end(), chunk(2)], "words is none of the run's stream_inputs, or has ended"),
        ([chunk(1, pin="others")], "others is none of the run's stream_inputs"),
        ([end("text")], "text is none of the run's stream_inputs"),
        ([chunk(1)], "end.words: never came: the stream broke off"),
        ([RunRequest()], "message"),
        ([RunRequest(chunk=PinChunk(pin="words", chunk=Chunk(sequence_number=1)))], "payload"),
    ],
)
async def test_frames_out_of_place_end_the_run(serve, agent, frames, text) -> None:
    made = agent(waits, inputs=INPUTS)
    async with serve(made) as client:
        with pytest.raises(InvalidRequest) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent", stream_inputs=["words"]), frames))
    assert text in str(raised.value)


@pytest.mark.parametrize("frames", [[], [end()]])
async def test_a_run_begins_with_open(serve, agent, frames) -> None:
    async with serve(agent(waits, inputs=INPUTS)) as client:
        with pytest.raises(InvalidRequest, match="open: must be the first frame of a run"):
            async for _ in client._stub.Run(iter(frames)):
                pass


@pytest.mark.parametrize(
    ("stream_inputs", "text"),
    [
        (["typo"], "stream_inputs.typo: the agent has no such input"),
        (["text"], "stream_inputs.text: is no stream"),
        (["words", "words"], "stream_inputs"),
    ],
)
async def test_stream_inputs_must_be_stream_pins(serve, agent, stream_inputs, text) -> None:
    async with serve(agent(waits, inputs=INPUTS)) as client:
        with pytest.raises(InvalidRequest) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent", stream_inputs=stream_inputs)))
    assert text in str(raised.value)


OUTPUTS = """[{name: text, type: string, optional: true, constraints: {enum: [a]}},
              {name: number, type: number, optional: true}, {name: image, type: image, optional: true,
               constraints: {maxSize: 10}}, {name: json, type: json, optional: true},
              {name: words, type: stream}]"""


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"text": 3}, "output 'text' takes string, got number"),
        ({"text": "\ud800"}, "output 'text' takes string, got half a character"),
        ({"text": "b"}, "output 'text' must be one of a; is 'b'"),
        ({"number": True}, "output 'number' takes number, got boolean"),
        ({"json": {"x": object()}}, "output 'json' takes json"),
        ({"json": float("nan")}, "output 'json' takes json"),
        ({"image": "picture"}, "output 'image' takes image as bytes or MediaValue, got str"),
        ({"image": b""}, "output 'image' is empty"),
        ({"image": image(size=12)}, "output 'image' must be at most 10 bytes, is 12"),
        (
            {"image": MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, url="https://elsewhere/x.png")},
            "output 'image' must be a reference into the media store or inline",
        ),
        ({"image": b"12345678901"}, "output 'image' must be at most 10 bytes"),
        ({"typo": 1}, "output 'typo' is not in the manifest, which has text, number"),
        ({"\ud800": 1}, "output '\\ud800' is not in the manifest, which has text, number"),
        ({"words": "hello"}, "output 'words' takes an async iterable of chunks, got str"),
        (["text"], "process returns a mapping of outputs by pin, not list"),
    ],
)
async def test_an_output_that_breaks_the_manifest_fails_the_run(serve, agent, given, text) -> None:
    async def process(run):
        return given

    async with serve(agent(process, outputs=OUTPUTS)) as client:
        with pytest.raises(AgentFailed) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent")))
    assert text in str(raised.value)
    assert raised.value.metadata["agent"] == "test.agent"


async def test_a_missing_output_fails_the_run(serve, agent) -> None:
    async def process(run):
        return None

    async with serve(agent(process, outputs="[{name: a, type: string}]")) as client:
        with pytest.raises(AgentFailed, match="output 'a' is missing"):
            await gather(client.run(OpenRun(agent_id="test.agent")))


async def test_an_output_is_given_once(serve, agent) -> None:
    async def process(run):
        await run.give("text", "a")
        return {"text": "a"}

    async with serve(agent(process, outputs=OUTPUTS)) as client:
        with pytest.raises(AgentFailed, match="output 'text' was given already"):
            await gather(client.run(OpenRun(agent_id="test.agent")))


async def test_what_an_agent_raises_arrives_with_its_class_and_without_its_stack(serve, agent, caplog) -> None:
    async def process(run):
        raise ZeroDivisionError("by zero")

    async with serve(agent(process)) as client:
        with pytest.raises(AgentFailed) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent")))
    assert str(raised.value) == "test.agent failed: ZeroDivisionError: by zero"
    assert raised.value.metadata == {"agent": "test.agent", "exception": "ZeroDivisionError"}
    assert "test_contract.py" in caplog.text


async def test_an_error_of_the_tree_arrives_as_it_is(serve, agent) -> None:
    async def process(run):
        raise Overloaded.retry("Full.", 2.0, queue="gpu")

    async with serve(agent(process)) as client:
        with pytest.raises(Overloaded) as raised:
            await gather(client.run(OpenRun(agent_id="test.agent")))
    assert raised.value.retry_after == 2.0


async def test_media_without_a_media_service_is_a_failed_precondition(serve, agent) -> None:
    async def process(run):
        await run.download("image")

    async with serve(agent(process, inputs=INPUTS)) as client:
        with pytest.raises(FailedPrecondition, match="media_address"):
            await gather(client.run(OpenRun(agent_id="test.agent", inputs={"image": image()})))


@pytest.mark.parametrize(
    "value",
    [Value(binary=b"123"), Value(media=MediaValue(type=MediaType.MEDIA_TYPE_AUDIO, inline=b"123"))],
    ids=["bytes", "media"],
)
async def test_a_binary_pin_takes_bytes_and_media_alike(serve, agent, value) -> None:
    async def process(run):
        return {"text": (await run.download("bytes")).decode()}

    async with serve(agent(process, inputs=INPUTS, outputs="[{name: text, type: string}]")) as client:
        assert await gather(client.run(OpenRun(agent_id="test.agent", inputs={"bytes": value}))) == {"text": "123"}


async def test_inline_media_needs_no_media_service(serve, agent) -> None:
    async def process(run):
        return {"size": len(await run.download("image"))}

    value = Value(media=MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, inline=b"1234"))
    async with serve(agent(process, inputs=INPUTS, outputs="[{name: size, type: number}]")) as client:
        assert await gather(client.run(OpenRun(agent_id="test.agent", inputs={"image": value}))) == {"size": 4}
