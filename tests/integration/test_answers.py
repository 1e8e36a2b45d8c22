"""A module that streams its answer, from its agent through a flow and the broker to readers at the door."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from contextlib import AsyncExitStack

import pytest
from google.protobuf import json_format

from mediamesh.agent import Agent, AgentSettings, parse_manifest, serving_agents
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.cli.demo import mesh_up
from mediamesh.client import Mesh
from mediamesh.wire.errors import StreamingNotSupported

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
TEXT = "A stream is an ordered log of events. "
DATA = {"summary": {"text": TEXT * 40}}


class Summariser(Agent):
    """Writes one field in pieces."""

    def describe(self):
        return parse_manifest(
            "{id: test.summariser, version: 1.0.0, outputs: [{name: answer, type: stream}], "
            "response: {mode: both, chunk_type: delta, buffer_size: 256}}"
        )

    async def process(self, run):
        async with run.answer("answer") as answer:
            await answer.progress(10)
            for _ in range(40):
                await answer.delta("summary.text", TEXT)


@pytest.fixture(scope="module")
async def asked(tmp_path_factory):
    """Return a mesh with the agent, and a client at its door."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving_agents(AgentSettings(grace_seconds=0), Summariser()))
        agents = json.dumps([f"127.0.0.1:{port}"])
        folder = tmp_path_factory.mktemp("mesh")
        up = mesh_up(folder, MEDIAMESH_UP_EXTRA_AGENTS=agents, MEDIAMESH_UP_MODELS="[]")
        mesh = await asyncio.to_thread(stack.enter_context, up)
        yield mesh, await stack.enter_async_context(Mesh(mesh.door))


def flow(response: str, agent: str = "test.summariser") -> FlowSource:
    node = f"{{id: summarise, type: {agent}, response: {response}}}"
    return FlowSource(
        name="answer.mlab",
        yaml=f"apiVersion: v1beta1\nkind: Flow\nmeta: {{id: answer}}\ngraph:\n  nodes:\n    - {node}\n",
    )


async def answer(client: Mesh, response: str) -> tuple[str, list[str]]:
    """Return the stream of an answer, and the kinds of chunks that the events of the run tell."""
    events = [event async for event in client.flows.run(flow(response), timeout=60)]
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    (stream_id,) = [e.stream_available.stream_id for e in events if e.HasField("stream_available")]
    assert [e.stream_complete.stream_id for e in events if e.HasField("stream_complete")] == [stream_id]
    return stream_id, [e.node_chunk.chunk.WhichOneof("payload") or "" for e in events if e.HasField("node_chunk")]


def get(mesh, path: str, accept: str = "application/json") -> str:
    request = urllib.request.Request(f"http://{mesh.door}{path}", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=60) as response:
        content: bytes = response.read()
    return content.decode()


async def test_an_answer_that_streams_can_be_read_at_the_door(asked) -> None:
    _, client = asked
    stream_id, kinds = await answer(client, "streaming")
    assert kinds[:2] == ["meta", "progress"]
    assert kinds.count("delta") == 6
    assert kinds[-1] == "final"
    read = [event async for event in client.streams.subscribe(stream_id)]
    assert [event.sequence for event in read] == list(range(1, len(kinds) + 3))
    chunks = [event.payload.data for event in read if event.payload.HasField("data")]
    assert "".join(chunk.delta.text for chunk in chunks) == TEXT * 40
    assert json_format.MessageToDict(chunks[-1].final.data) == DATA


async def test_an_answer_reads_as_lines_in_the_envelope_of_results(asked) -> None:
    mesh, client = asked
    stream_id, _ = await answer(client, "streaming")
    path = f"/api/v1/streams/{stream_id}?envelope=result"
    lines = (await asyncio.to_thread(get, mesh, path, "application/x-ndjson")).splitlines()
    first, *pieces, last = map(json.loads, lines)
    assert first["ok"]
    assert first["streaming"]
    assert "".join(piece.get("chunk", {}).get("delta", "") for piece in pieces) == TEXT * 40
    assert last["final"]
    assert last["data"] == DATA


async def test_the_same_module_answers_at_once_when_that_is_asked_for(asked) -> None:
    _, client = asked
    assert (await answer(client, "sync"))[1] == ["final"]


async def test_a_stream_asked_of_a_shipped_agent_that_has_none_is_e4010(asked) -> None:
    _, client = asked
    with pytest.raises(StreamingNotSupported, match=r"answer\.mlab:6:") as raised:
        await client.flows.start(flow("streaming", "test.image-generator"))
    assert raised.value.number == "E4010"


async def test_the_capabilities_of_the_mesh_are_told_as_the_specification_spells_them(asked) -> None:
    mesh, _ = asked
    told = json.loads(await asyncio.to_thread(get, mesh, "/api/v1/capabilities"))
    assert told["runtime"] == "mediamesh"
    assert told["version"]
    capabilities = told["capabilities"]
    assert capabilities.keys() == {"streaming", "multimodal", "max_media_size_mb", "supported_transports"}
    assert capabilities["streaming"] is True
    assert capabilities["multimodal"].keys() == {"input", "output"}
    assert capabilities["supported_transports"] == ["grpc", "grpc-web", "sse", "ndjson", "websocket"]
