"""Media on its way through a flow: the facts that the real media server reads from the bytes, against the pins."""

from __future__ import annotations

import asyncio
import urllib.request
from contextlib import AsyncExitStack
from fractions import Fraction
from types import SimpleNamespace
from typing import BinaryIO

import av
import pytest

from mediamesh.agent import Agent, AgentSettings, parse_manifest, serving_agents
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaType, MediaValue
from mediamesh.api.media.v1.media_service_pb2 import PRESIGN_METHOD_PUT, PresignRequest
from mediamesh.client import connect
from mediamesh.client.flows import FlowClient
from mediamesh.client.media import MediaClient
from mediamesh.kit.serve import serving
from mediamesh.media.app import app as media_app
from mediamesh.orchestrator.app import app as orchestrator_app
from mediamesh.orchestrator.settings import Settings as OrchestratorSettings
from mediamesh.wire.errors import (
    InvalidRequest,
    MediaDecodeFailed,
    MediaTooLarge,
    MeshError,
    UnsupportedMediaType,
)
from tests.media.makers import document, film, locked_document, sound
from tests.orchestrator.flow_texts import flow

pytestmark = pytest.mark.slow

AUDIO, VIDEO = MediaType.MEDIA_TYPE_AUDIO, MediaType.MEDIA_TYPE_VIDEO
DOCUMENT, IMAGE = MediaType.MEDIA_TYPE_DOCUMENT, MediaType.MEDIA_TYPE_IMAGE


class Taker(Agent):
    """Takes one kind of media and tells the facts that came with it."""

    def __init__(self, name, pin) -> None:
        self.name, self.pin = name, pin

    def describe(self):
        return parse_manifest(
            f"{{id: test.{self.name}, version: 1.0.0, inputs: [{self.pin}], outputs: [{{name: facts, type: json}}]}}"
        )

    async def process(self, run):
        facts = run.inputs["media"].ref.metadata
        return {"facts": {field.name: value for field, value in facts.ListFields()}}


class Decoder(Agent):
    """Decodes a film in a thread, from where it lies."""

    def describe(self):
        return parse_manifest(
            "{id: test.decoder, version: 1.0.0, inputs: [{name: media, type: video}],"
            " outputs: [{name: frames, type: number}]}"
        )

    async def process(self, run):
        async with run.open("media") as file:
            return {"frames": await asyncio.to_thread(_frames, file)}


def _frames(file: BinaryIO) -> int:
    with av.open(file, "r") as container:
        return sum(1 for _ in container.decode(video=0))


class Giver(Agent):
    """Gives sound of 44.1 kHz, or what it calls sound."""

    def describe(self):
        return parse_manifest(
            "{id: test.giver, version: 1.0.0, params: [{name: fake, type: boolean, default: false}],"
            " outputs: [{name: media, type: audio}]}"
        )

    async def process(self, run):
        data = b"no sound at all" if run.params["fake"] else sound(rate=44_100)
        return {"media": Value(media=MediaValue(type=AUDIO, inline=data))}


AGENTS = (
    Taker("speech", "{name: media, type: audio, constraints: {sampleRate: 16000, channels: 1, maxDuration: 2}}"),
    Taker("opus", "{name: media, type: audio, constraints: {mimeType: 'audio/webm,audio/ogg', encoding: opus}}"),
    Taker("clip", "{name: media, type: video, constraints: {fps: 29.97, width: 64, height: 48, maxDuration: 5}}"),
    Taker("paper", "{name: media, type: document, constraints: {mimeType: application/pdf, maxSize: 2KB}}"),
    Taker("short", "{name: media, type: audio, constraints: {maxDuration: 0.5}}"),
    Taker("plain", "{name: media, type: audio}"),
    Taker("anything", "{name: media, type: binary}"),
    Decoder(),
    Giver(),
)


@pytest.fixture(scope="module")
async def mesh(settings):
    """Return a mesh of a media server, an agent server and an orchestrator, with clients of it."""
    async with AsyncExitStack() as stack:
        media = await stack.enter_async_context(media_app(settings))
        media_address = f"127.0.0.1:{await stack.enter_async_context(serving(settings, media))}"
        port = await stack.enter_async_context(serving_agents(AgentSettings(media_address=media_address), *AGENTS))
        own = OrchestratorSettings(
            valkey_url="memory",
            media_address=media_address,
            agent_addresses=[f"127.0.0.1:{port}"],
            retry_attempts=1,
            grace_seconds=0.2,
        )
        orchestrator = await stack.enter_async_context(orchestrator_app(own))
        channel = await stack.enter_async_context(
            connect(f"127.0.0.1:{await stack.enter_async_context(serving(own, orchestrator))}")
        )
        store = await stack.enter_async_context(connect(media_address))
        yield SimpleNamespace(flows=FlowClient(channel), media=MediaClient(store))


@pytest.fixture
def ran(mesh):
    """Return what runs a flow from an upload, or a recording, to an agent, and gives what the agent gave."""

    async def run(agent, value, *, source="ui.file-upload", pin="file"):
        text = flow(f"give {source}", f"take test.{agent}", edges=f"give.{pin}>take.media")
        outputs = {}
        async for event in mesh.flows.run(text, {f"give.{pin}": value}, timeout=30):
            if event.HasField("node_output"):
                outputs[event.node_id] = event.node_output.value
            if event.HasField("execution_finished") and event.execution_finished.HasField("error"):
                raise MeshError.from_status(event.execution_finished.error)
        return outputs["take"]

    return run


def inline(kind, data) -> Value:
    return Value(media=MediaValue(type=kind, inline=data))


async def test_an_agent_gets_the_facts_of_sound_that_came_inline(ran) -> None:
    given = await ran("speech", inline(AUDIO, sound()))
    assert given.json.struct_value["mime_type"] == "audio/wav"
    assert given.json.struct_value["sample_rate_hz"] == 16_000


async def test_an_agent_gets_the_facts_of_what_a_microphone_recorded(ran) -> None:
    data = sound("webm", "libopus", rate=48_000, live=True)
    given = await ran("opus", inline(AUDIO, data), source="ui.audio-recorder", pin="audio")
    assert given.json.struct_value["duration_seconds"] == pytest.approx(1.0, abs=0.01)


async def test_an_agent_decodes_a_film_from_where_it_lies(mesh, ran, place) -> None:
    stored = await mesh.media.upload(film(frames=40, with_sound="aac"), media_type=VIDEO, place=place)
    assert (await ran("decoder", Value(media=stored))).number == 40


async def test_a_frame_rate_that_a_pin_rounds_is_the_same(ran) -> None:
    await ran("clip", inline(VIDEO, film(fps=Fraction(30_000, 1001), frames=30)))


async def test_a_binary_pin_takes_media_of_every_kind(ran) -> None:
    for kind, data in ((AUDIO, sound()), (VIDEO, film()), (DOCUMENT, document())):
        await ran("anything", inline(kind, data))


@pytest.mark.parametrize(
    ("agent", "kind", "make", "error", "text"),
    [
        ("speech", AUDIO, lambda: sound(rate=44_100), InvalidRequest, "sampleRate must be 16000 Hz, is 44100"),
        ("speech", AUDIO, lambda: sound(layout="stereo"), InvalidRequest, "channels must be 1, is 2"),
        ("speech", AUDIO, lambda: sound(seconds=2.5), MediaTooLarge, "must last at most 2 s, lasts 2.5 s"),
        ("opus", AUDIO, sound, UnsupportedMediaType, "mimeType must be audio/webm, audio/ogg; is audio/wav"),
        ("opus", AUDIO, lambda: sound("ogg", "flac"), InvalidRequest, "encoding must be opus, is flac"),
        ("clip", VIDEO, lambda: film(fps=25), InvalidRequest, "fps must be 29.97 frames/s, is 25.0"),
        ("clip", VIDEO, lambda: film(size=(96, 48)), InvalidRequest, "width must be 64 px, is 96"),
        ("paper", DOCUMENT, lambda: document(40), MediaTooLarge, "must be at most 2000 bytes"),
        ("paper", DOCUMENT, locked_document, MediaDecodeFailed, "locked with a password"),
        ("clip", VIDEO, lambda: film()[:-100], MediaDecodeFailed, "damaged or cut off"),
        ("clip", AUDIO, sound, UnsupportedMediaType, "takes video, got audio"),
        ("speech", AUDIO, film, UnsupportedMediaType, "the bytes are video/mp4"),
        ("speech", IMAGE, sound, UnsupportedMediaType, "takes audio, got image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_does_not_fit_its_pin_is_refused_before_anything_runs(ran, agent, kind, make, error, text) -> None:
    with pytest.raises(error, match=text) as raised:
        await ran(agent, inline(kind, make()))
    assert [field for field, _ in raised.value.violations] == ["inputs['give.file']"]


async def test_what_is_in_the_store_is_held_against_the_pin_by_the_facts_of_the_store(mesh, ran, place) -> None:
    stored = await mesh.media.upload(sound(rate=44_100), media_type=AUDIO, place=place)
    stored.ref.metadata.sample_rate_hz = 16_000  # whatever the caller says
    with pytest.raises(InvalidRequest, match="sampleRate must be 16000 Hz, is 44100"):
        await ran("speech", Value(media=stored))


async def test_what_a_recorder_gives_is_held_against_the_pin_that_it_enters(ran) -> None:
    data = sound("webm", "libopus", rate=48_000, live=True)
    with pytest.raises(MeshError, match="does not fit `media`: sampleRate must be 16000 Hz, is 48000"):
        await ran("speech", inline(AUDIO, data), source="ui.audio-recorder", pin="audio")


async def ended(events):
    """Return the errors of the nodes that failed, by node, and the outputs of the others."""
    errors, outputs = {}, {}
    async for event in events:
        if event.HasField("node_failed"):
            errors[event.node_id] = MeshError.from_status(event.node_failed.error)
        if event.HasField("node_output"):
            outputs[event.node_id] = event.node_output.value
    return errors, outputs


async def test_what_an_agent_gives_fails_only_the_node_whose_pin_it_does_not_fit(mesh) -> None:
    text = flow(
        "give test.giver", "short test.short", "any test.anything", edges="give.media>short.media give.media>any.media"
    )
    errors, outputs = await ended(mesh.flows.run(text, timeout=30))
    assert list(errors) == ["short"]
    assert isinstance(errors["short"], MediaTooLarge)
    assert errors["short"].text == (
        "What `give` gave on `media` does not fit `media`: must last at most 0.5 s, lasts 1 s."
    )
    assert outputs["any"].json.struct_value["sample_rate_hz"] == 44_100


async def test_what_an_agent_calls_sound_must_be_sound(mesh) -> None:
    text = flow("give test.giver, params: {fake: true}", "take test.anything", edges="give.media>take.media")
    errors, outputs = await ended(mesh.flows.run(text, timeout=30))
    assert list(errors) == ["give"]
    assert "the bytes are text/plain" in errors["give"].text
    assert not outputs


FACTS = MediaFacts(mime_type="audio/wav", sample_rate_hz=16_000, channels=1, duration_seconds=0.1)


async def test_what_was_written_through_a_signed_address_is_not_believed(mesh, ran, place) -> None:
    """Whatever its writer calls it, nobody has looked at it; a pin for bytes takes it as such."""
    request = PresignRequest(method=PRESIGN_METHOD_PUT, place=place, mime_type="audio/wav")
    signed = await mesh.media.presign(request)
    await asyncio.to_thread(_put, signed.http_url, b"<script>alert(1)</script>", "audio/wav")
    written = MediaValue(type=AUDIO, ref=MediaReference(url=signed.url, metadata=FACTS))
    with pytest.raises(InvalidRequest, match="is media whose sampleRate nobody has read from its bytes"):
        await ran("plain", Value(media=written))
    await ran("anything", Value(media=written))


def _put(url, data, mime_type) -> None:
    request = urllib.request.Request(url, data, {"Content-Type": mime_type}, method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
