"""The orchestrator with a real media server, and with neighbours that come and go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mediamesh import agent
from mediamesh.agent import Agent, AgentSettings, parse_manifest
from mediamesh.agents.audio_converter import AudioConverter
from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.kit.serve import serving
from mediamesh.media.app import app as media_app
from mediamesh.media.settings import Settings as MediaSettings
from mediamesh.orchestrator import catalog
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.programs import valkey
from mediamesh.wire.errors import MeshError, Unavailable, UnsupportedMediaType
from tests.orchestrator.conftest import orchestrating, serving_agents
from tests.orchestrator.fake_agents import Agents
from tests.orchestrator.flow_texts import flow

CAT = Path(__file__).parents[2] / "clients/examples/media/cat.jpg"
SLOW = flow("wait test.slow", "text test.echo, outputs: {text: x}", "fine test.echo", edges="text.text>fine.text")
SEE = flow("upload ui.file-upload", "see test.viewer", edges="upload.file>see.image")


@pytest.fixture
async def with_media(settings, s3):
    own = MediaSettings(
        endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key, bucket=s3.bucket
    )
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(own, await stack.enter_async_context(media_app(own))))
        yield await stack.enter_async_context(orchestrating(settings(media_address=f"127.0.0.1:{port}")))


def image(**source):
    return value_pb2.Value(media=media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, **source))


@pytest.mark.stack
async def test_a_photo_goes_through_a_flow_by_reference_with_the_facts_of_its_bytes(with_media) -> None:
    photo = CAT.read_bytes()
    events = [event async for event in with_media.flows.run(SEE, {"upload.file": image(inline=photo)})]
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    reference = next(event for event in events if event.HasField("node_output")).node_output.value.media.ref
    assert (reference.size_bytes, reference.metadata.mime_type) == (len(photo), "image/jpeg")
    again = [event async for event in with_media.flows.run(SEE, {"upload.file": image(ref=reference)})]
    assert again[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED


async def test_a_text_that_says_it_is_a_photo_is_refused_with_its_number(with_media) -> None:
    with pytest.raises(UnsupportedMediaType) as raised:
        await with_media.flows.start(SEE, {"upload.file": image(inline=b"I am not a photo. " * 100)})
    assert raised.value.number == "E1010"
    assert [field for field, _ in raised.value.violations] == ["inputs['upload.file']"]


async def test_an_agent_server_that_dies_fails_its_node_and_the_next_run_finds_the_new_one(settings) -> None:
    agents = Agents()
    async with AsyncExitStack() as stack:
        async with AsyncExitStack() as life:
            address = await life.enter_async_context(serving_agents(agents))
            mesh = await stack.enter_async_context(orchestrating(settings(agent_addresses=[address])))
            events = mesh.flows.run(SLOW)
            seen = [await anext(events)]
            await agents.until(lambda: agents.running[seen[0].execution_id] >= 1)
            while not any(event.node_id == "fine" and event.HasField("node_finished") for event in seen):
                seen.append(await anext(events))
        seen += [event async for event in events]
        (failed,) = [event for event in seen if event.HasField("node_failed")]
        assert failed.node_id == "wait"
        assert isinstance(MeshError.from_status(failed.node_failed.error), Unavailable)
        agents.release.set()
        await stack.enter_async_context(serving_agents(agents, port=int(address.split(":")[1])))
        async with asyncio.timeout(10):
            state = execution_pb2.EXECUTION_STATE_FAILED
            while state != execution_pb2.EXECUTION_STATE_SUCCEEDED:
                state = [event async for event in mesh.flows.run(SLOW)][-1].execution_finished.state


@pytest.mark.stack
async def test_a_run_survives_a_restart_of_its_log(settings, agents, tmp_path) -> None:
    agents.release.clear()
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        async with running(valkey(port=port, data=tmp_path), tmp_path / "log"):
            url = f"redis://127.0.0.1:{port}/0"
            mesh = await stack.enter_async_context(orchestrating(settings(valkey_url=url)))
            execution = await mesh.flows.start(SLOW)
            await agents.until(lambda: agents.running[execution.execution_id] >= 1)
        agents.release.set()
        async with running(valkey(port=port, data=tmp_path), tmp_path / "log"):
            events = [event async for event in mesh.flows.watch(execution.execution_id)]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
            await stack.aclose()
    agents.release.clear()


EAR = """
id: test.ear
version: 1.0.0
inputs: [{name: audio, type: audio, constraints: {sampleRate: 16000}}]
"""


class Ear(Agent):
    """Takes sound of one form alone."""

    def describe(self):
        return parse_manifest(EAR)

    async def process(self, run):
        return {}


async def test_a_converter_whose_server_came_up_late_stands_where_it_fits(settings, monkeypatch) -> None:
    monkeypatch.setattr(catalog, "_HURRY_SECONDS", 3600)
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        ears = await stack.enter_async_context(agent.serving_agents(AgentSettings(), Ear()))
        addresses = [f"127.0.0.1:{ears}", f"127.0.0.1:{port}"]
        own = settings(agent_addresses=addresses, agents_refresh_seconds=3600)
        mesh = await stack.enter_async_context(orchestrating(own))
        hear = flow("mic ui.audio-recorder", "ear test.ear", edges="mic.audio>ear.audio")
        assert len((await mesh.flows.validate(hear)).flow.nodes) == 2
        converter = AudioConverter(max_sounds=1, max_bytes=1000)
        await stack.enter_async_context(agent.serving_agents(AgentSettings(port=port), converter))
        async with asyncio.timeout(10):
            while len(nodes := (await mesh.flows.validate(hear)).flow.nodes) == 2:
                pass  # gRPC takes its time before it connects again
        assert nodes[-1].type == "mediamesh.audio-converter"
