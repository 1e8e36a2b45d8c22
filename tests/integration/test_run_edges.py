"""The events of a run over every edge: one cursor for all of them."""

from __future__ import annotations

import json

import httpx
import pytest
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Origin

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_IMAGE, MediaValue
from tests.integration.conftest import CAT, CLASSIFY

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
async def ended(door):
    """Return the events of a run that has ended, as gRPC tells them."""
    source = FlowSource(name=CLASSIFY.name, yaml=CLASSIFY.read_text())
    cat = {"upload.file": Value(media=MediaValue(type=MEDIA_TYPE_IMAGE, inline=CAT.read_bytes()))}
    return [event async for event in door.flows.run(source, cat, timeout=60)]


@pytest.fixture
async def http(mesh):
    async with httpx.AsyncClient(base_url=f"http://{mesh.door}", timeout=30) as client:
        yield client


def socket(mesh, execution_id, **query):
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    return connect_socket(f"ws://{mesh.door}/v1/executions/{execution_id}/ws?{parameters}")


def sequences(events):
    return [int(event["sequence"]) for event in events]


async def test_a_reader_moves_from_edge_to_edge_and_misses_nothing(mesh, http, ended) -> None:
    address = f"/v1/executions/{ended[0].execution_id}/events"
    lines = await http.get(address, headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    told = [json.loads(line) for line in lines.text.splitlines()]
    assert sequences(told) == [event.sequence for event in ended]
    middle = told[len(told) // 2]["sequence"]
    pages = await http.get(address, headers={"last-event-id": str(middle)})
    by_page = [json.loads(line[6:]) for line in pages.text.splitlines() if line.startswith('data: {"')]
    async with socket(mesh, ended[0].execution_id, after=middle) as opened:
        by_socket = [json.loads(frame) async for frame in opened]
    assert opened.close_code == 1000
    assert by_page == by_socket == told[len(told) // 2 + 1 :]
    assert "executionFinished" in by_socket[-1]


@pytest.mark.parametrize(
    ("execution", "query", "said"),
    [
        ("nothing-of-this-name", {}, "There is no execution"),
        (None, {"after": "x"}, "must be a whole number"),
        (None, {"after": 9999}, ""),
    ],
    ids=["unknown", "no number", "ahead"],
)
async def test_a_socket_that_cannot_be_served_says_why(mesh, ended, execution, query, said) -> None:
    async with socket(mesh, execution or ended[0].execution_id, **query) as opened:
        last = json.loads(await opened.recv())
        with pytest.raises(ConnectionClosedError):
            await opened.recv()
    assert opened.close_code == 1008
    assert said in last["error"]["message"]
    assert last["executionId"] == (execution or ended[0].execution_id)


async def test_a_page_of_another_origin_gets_no_socket(mesh, ended) -> None:
    url = f"ws://{mesh.door}/v1/executions/{ended[0].execution_id}/ws"
    with pytest.raises(InvalidStatus, match="403"):
        async with connect_socket(url, origin=Origin("https://elsewhere.example")):
            pass
