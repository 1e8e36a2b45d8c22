"""The text of streams, and sockets, as they come through Envoy: what it makes of bodies, ends and errors."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import httpx
import pytest

from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.client.channel import connect
from mediamesh.client.streams import StreamClient
from mediamesh.edge.serve import serving as serving_edge
from mediamesh.edge.settings import Settings
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from tests.edge.conftest import Edge, objects

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
async def door(tmp_path_factory, streams_port):
    """Return an Envoy before a real streams server and a real server for WebSockets."""
    folder = tmp_path_factory.mktemp("door")
    port, admin_port, inside_port = free_ports(3)
    async with AsyncExitStack() as stack:
        settings = Settings(streams_address=f"127.0.0.1:{inside_port}")
        edge_port = await stack.enter_async_context(serving_edge(settings))
        door = Door(
            host="127.0.0.1",
            port=port,
            admin_port=admin_port,
            inside_port=inside_port,
            servers={"streams": [("127.0.0.1", streams_port)]},
            edge=[("127.0.0.1", edge_port)],
            template=UpSettings().envoy_template,
            folder=folder / "envoy",
            access_log=folder / "access.jsonl",
            web=folder / "web",
            drain_seconds=0,
        )
        await stack.enter_async_context(running(envoy(door), folder / "envoy.log"))
        yield door


@pytest.fixture
async def http(door):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{door.port}") as client:
        yield client


@pytest.fixture
async def mesh(door):
    async with connect(f"127.0.0.1:{door.port}") as channel:
        yield StreamClient(channel)


async def ended(mesh):
    opened = await mesh.open()
    async with mesh.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.start()
        await publisher.send(Chunk(content=TextContent(text="Hel")))
        await publisher.end()
    return f"/api/v1/streams/{opened.stream_id}"


async def test_server_sent_events_come_with_their_headers(http, mesh) -> None:
    answer = await http.get(await ended(mesh))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert [line for line in answer.text.split("\n") if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3"]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_reader_of_a_silent_stream_hears_at_once_that_it_is_connected(http, mesh, accept) -> None:
    opened = await mesh.open()
    async with (
        asyncio.timeout(5),
        http.stream("GET", f"/api/v1/streams/{opened.stream_id}", headers={"accept": accept}) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == accept


async def test_an_event_source_that_comes_back_at_the_end_gets_a_status(http, mesh) -> None:
    path = await ended(mesh)
    answer = await http.get(path, headers={"last-event-id": "3", "accept": "text/event-stream"})
    assert answer.status_code == 400
    assert "nothing follows" in answer.json()["message"]


async def test_lines_after_the_end_are_none(http, mesh) -> None:
    answer = await http.get(await ended(mesh), params={"after": 3}, headers={"accept": "application/x-ndjson"})
    assert (answer.status_code, answer.text) == (200, "")


async def test_errors_before_the_first_byte_are_statuses(http, mesh) -> None:
    assert (await http.get("/api/v1/streams/unknown")).status_code == 404
    path = await ended(mesh)
    assert (await http.get(path, params={"after": 9})).status_code == 400
    assert (await http.get(path, headers={"last-event-id": "x"})).status_code == 400


async def test_lines_are_the_same_events(http, mesh) -> None:
    answer = await http.get(await ended(mesh), headers={"accept": "application/x-ndjson"})
    assert [json.loads(line)["sequence"] for line in answer.text.splitlines()] == [1, 2, 3]


async def test_sockets_open_where_a_stream_says(door, mesh) -> None:
    path = await ended(mesh)
    async with Edge(door.port).open(path.rsplit("/", 1)[1]) as socket:
        assert [frame["sequence"] async for frame in objects(socket)] == [1, 2, 3]
    assert socket.close_code == 1000


async def test_the_token_of_a_producer_is_in_no_log(door, mesh) -> None:
    opened = await mesh.open()
    async with Edge(door.port).publish(opened) as socket:
        await socket.recv()

    def log() -> str:
        return door.access_log.read_text() if door.access_log.exists() else ""

    async with asyncio.timeout(30):
        while opened.stream_id + "/ws" not in log():  # noqa: ASYNC110 - Envoy writes it when it likes
            await asyncio.sleep(0.1)
    assert opened.publish_token not in log()
