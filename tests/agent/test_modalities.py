"""What media an agent takes: by its pins, by its modalities, and within its limits."""

from __future__ import annotations

import pytest

from mediamesh.agent import Agent, parse_manifest
from mediamesh.agent.testing import gather
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaType, MediaValue
from mediamesh.api.stream.v1 import chunk_pb2
from mediamesh.wire.errors import (
    InvalidRequest,
    MediaTooLarge,
    MeshError,
    MultimodalNotSupported,
    UnsupportedMediaType,
)
from mediamesh.wire.modalities import check_limits, given_by, refusal, taken_by

IMAGE, AUDIO, VIDEO = MediaType.MEDIA_TYPE_IMAGE, MediaType.MEDIA_TYPE_AUDIO, MediaType.MEDIA_TYPE_VIDEO


def manifest(**parts):
    text = "".join(f", {name}: {part}" for name, part in parts.items())
    return parse_manifest(f"{{id: test.agent, version: 1.0.0{text}}}")


def media(kind, *, size=0, seconds=0.0, **source):
    facts = MediaFacts(mime_type="image/png", width=1, height=1, duration_seconds=seconds)
    reference = None if source else MediaReference(url="s3://media/x", size_bytes=size, metadata=facts)
    return MediaValue(type=kind, ref=reference, **source)


@pytest.mark.parametrize(
    ("parts", "taken", "given"),
    [
        ({"inputs": "[{name: a, type: string}]", "outputs": "[{name: b, type: json}]"}, {"text"}, {"text"}),
        ({"inputs": "[{name: a, type: image}, {name: p, type: string}]"}, {"image", "text"}, set()),
        ({"inputs": "[{name: a, type: image}]", "modalities": "{output: [audio]}"}, {"image"}, {"audio"}),
        ({"inputs": "[{name: a, type: stream}]", "modalities": "{input: [video]}"}, {"video"}, set()),
    ],
)
def test_pins_say_what_a_manifest_does_not_declare(parts, taken, given) -> None:
    assert (taken_by(manifest(**parts)), given_by(manifest(**parts))) == (taken, given)


@pytest.mark.parametrize(
    ("kind", "mime_types", "media", "is_taken"),
    [
        ("string", "", "image", False),
        ("json", "", "image", False),
        ("image", "", "image", True),
        ("image", "", "video", True),  # E1010 is what its own rule says
        ("binary", "", "file", True),
        ("stream", "", "audio", False),
        ("stream", "text/plain,audio/*", "audio", True),
        ("stream", "audio/*", "video", False),
        ("stream", "*/*", "video", True),
        ("stream", "application/pdf", "document", True),
        ("stream", "text/plain", "document", False),
    ],
)
def test_media_needs_a_pin_or_a_modality_that_takes_it(kind, mime_types, media, is_taken) -> None:
    made = manifest(inputs=f"[{{name: p, type: {kind}, constraints: {{mimeType: '{mime_types}'}}}}]")
    if not mime_types:
        made.inputs[0].ClearField("constraints")
    number = MediaType.Value(f"MEDIA_TYPE_{media.upper()}")
    assert (refusal(made, made.inputs[0], number) is None) == is_taken
    made.modalities.input.append(media)
    assert refusal(made, made.inputs[0], number) is None


LIMITED = "{input: [image, audio], constraints: {max_image_size_mb: 2, max_audio_duration_s: 60}}"


@pytest.mark.parametrize(
    "fits",
    [
        media(IMAGE, size=2_000_000),
        media(AUDIO, seconds=60),
        media(AUDIO, inline=b"x"),
        media(VIDEO, size=9_000_000),
    ],
    ids=["image", "audio", "inline audio", "video"],
)
def test_media_within_the_limits_of_the_modalities_is_taken(fits) -> None:
    assert not list(check_limits(manifest(modalities=LIMITED), fits))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (media(IMAGE, size=2_100_000), MediaTooLarge, "must be at most 2 MB, is 2.1 MB (max_image_size_mb)"),
        (media(IMAGE, inline=b"x" * 2_500_000), MediaTooLarge, "must be at most 2 MB, is 2.5 MB (max_image_size_mb)"),
        (media(IMAGE), InvalidRequest, "must be at most 2 MB, is of unknown size (max_image_size_mb)"),
        (media(AUDIO, seconds=60.5), MediaTooLarge, "must last at most 60 s, lasts 60.5 s (max_audio_duration_s)"),
        (media(AUDIO), InvalidRequest, "must last at most 60 s, lasts for an unknown time (max_audio_duration_s)"),
    ],
    ids=["image", "inline image", "image of unknown size", "audio", "audio of unknown length"],
)
def test_media_beyond_the_limits_of_the_modalities_is_refused(value, kind, text) -> None:
    assert list(check_limits(manifest(modalities=LIMITED), value)) == [(kind, text)]
    assert not list(check_limits(manifest(), value))


async def test_a_run_is_refused_where_its_media_is_too_large_for_the_module(serve) -> None:
    class Small(Agent):
        def describe(self):
            return manifest(inputs="[{name: picture, type: image}]", modalities=LIMITED)

        async def process(self, run):
            raise AssertionError("ran")

    error = await outcome(serve, Small(), {"picture": Value(media=media(IMAGE, size=3_000_000))})
    assert isinstance(error, MediaTooLarge)
    assert error.violations == [("inputs.picture", "must be at most 2 MB, is 3 MB (max_image_size_mb)")]


async def outcome(serve, made, inputs=None, frames=(), stream_inputs=()):
    """Return the outputs of a run, or how it failed."""
    async with serve(made) as client:
        opening = OpenRun(agent_id="test.agent", inputs=inputs or {}, stream_inputs=stream_inputs)
        try:
            return await gather(client.run(opening, frames, timeout=30))
        except MeshError as error:
            return error


async def ran(run):
    return {"said": "ran"}


async def test_media_to_a_module_of_text_is_refused_before_it_runs(serve, agent) -> None:
    made = agent(ran, inputs="[{name: prompt, type: string}]", outputs="[{name: said, type: string}]")
    error = await outcome(serve, made, {"prompt": Value(media=media(IMAGE, inline=b"x"))})
    assert isinstance(error, MultimodalNotSupported)
    assert error.number == "E4011"
    assert error.text == "test.agent takes text and no image at `prompt`."
    assert error.metadata == {"agent": "test.agent", "pin": "prompt", "modality": "image"}


async def test_media_to_the_wrong_pin_of_a_module_that_takes_it_is_a_wrong_request(serve, agent) -> None:
    made = agent(ran, inputs="[{name: prompt, type: string}, {name: picture, type: image, optional: true}]")
    assert type(await outcome(serve, made, {"prompt": Value(media=media(IMAGE, inline=b"x"))})) is InvalidRequest
    found = await outcome(serve, made, {"prompt": Value(text="x"), "picture": Value(media=media(AUDIO, inline=b"x"))})
    assert isinstance(found, UnsupportedMediaType)


async def test_a_module_of_before_takes_media_by_its_pins(serve, agent) -> None:
    made = agent(ran, inputs="[{name: picture, type: image}]", outputs="[{name: said, type: string}]")
    assert await outcome(serve, made, {"picture": Value(media=media(IMAGE, inline=b"x"))}) == {"said": "ran"}


def piece(kind):
    binary = chunk_pb2.MediaEncoding.MEDIA_ENCODING_BINARY
    chunk = chunk_pb2.Chunk(
        sequence_number=1, media=chunk_pb2.Media(media_type=kind, encoding=binary, binary=b"x", total_chunks=1)
    )
    return [RunRequest(chunk=PinChunk(pin="sound", chunk=chunk)), RunRequest(end=PinEnd(pin="sound"))]


@pytest.mark.parametrize(
    ("constraints", "kind", "is_taken"), [("{mimeType: audio/*}", AUDIO, True), ("{}", AUDIO, False)]
)
async def test_media_in_a_stream_is_taken_where_the_stream_says_so(serve, agent, constraints, kind, is_taken) -> None:
    async def process(run):
        return {"said": str(len([chunk async for chunk in run.stream("sound")]))}

    made = agent(
        process,
        inputs=f"[{{name: sound, type: stream, constraints: {constraints}}}]",
        outputs="[{name: said, type: string}]",
    )
    found = await outcome(serve, made, frames=piece(kind), stream_inputs=["sound"])
    assert found == {"said": "1"} if is_taken else isinstance(found, MultimodalNotSupported)
