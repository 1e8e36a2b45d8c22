"""The mesh under what nobody should do to it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import AsyncExitStack

import pytest

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_IMAGE, MediaValue
from mediamesh.client import Mesh
from mediamesh.wire.errors import InvalidRequest, MeshError
from tests.integration.conftest import CAT, a_cat, server_process

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


async def succeeds(door, flow, inputs) -> None:
    events = [event async for event in door.flows.run(flow, inputs, timeout=60)]
    assert not events[-1].execution_finished.HasField("error"), events[-1]


async def test_garbage_at_every_port_harms_nobody(mesh, door, classify, cat) -> None:
    ports = json.loads((mesh.data / "ports.json").read_text())
    ours = [ports["envoy"]["door"], *(ports[name]["port"] for name in ("media", "inference", "agents", "orchestrator"))]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for port in ours:
        for opening in (b"", preface, b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                raw.sendall(opening + os.urandom(4096))
    await succeeds(door, classify, cat)


async def test_a_thousand_watchers_see_the_same_events(mesh, door, classify, cat) -> None:
    execution = await door.flows.start(classify, cat)

    async def watch(client: Mesh) -> list[tuple[int, str | None]]:
        return [
            (event.sequence, event.WhichOneof("event")) async for event in client.flows.watch(execution.execution_id)
        ]

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        clients = [await stack.enter_async_context(Mesh(mesh.door)) for _ in range(4)]
        watchers = [group.create_task(watch(clients[number % 4])) for number in range(1000)]
        await asyncio.wait(watchers)
    seen = [watcher.result() for watcher in watchers]
    assert seen[0][-1][1] == "execution_finished"
    assert [sequence for sequence, _ in seen[0]] == list(range(1, len(seen[0]) + 1))
    assert all(other == seen[0] for other in seen)


async def test_a_reader_that_stops_costs_little(mesh, door, classify, cat) -> None:
    """200 readers ask for a run's events over HTTP and never read: nothing grows, and others are served."""
    execution = await door.flows.start(classify, cat)
    [_ async for _ in door.flows.watch(execution.execution_id)]
    watched = server_process(mesh, "orchestrator")
    before = watched.memory_info().rss
    host, _, port = mesh.door.partition(":")
    request = f"GET /v1/executions/{execution.execution_id}/events HTTP/1.1\r\nHost: {mesh.door}\r\n\r\n".encode()
    readers = [socket.create_connection((host, int(port)), timeout=5) for _ in range(200)]
    try:
        for reader in readers:
            reader.sendall(request)
        await succeeds(door, classify, cat)
        assert watched.memory_info().rss - before < 64 * 1024 * 1024
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.parametrize(
    "yaml",
    [
        "x" * (1024 * 1024 + 1),
        "a: &a [" + ",".join(["*a"] * 10) + "]",
        "[" * 5000,
        "\x00\x01",
        "graph: {nodes: " + "[{id: a}," * 3000 + "]}",
    ],
    ids=["too long", "alias to itself", "deep", "control characters", "nested"],
)
async def test_a_hostile_flow_is_refused_with_a_sentence(door, yaml) -> None:
    with pytest.raises(InvalidRequest) as raised:
        async for _ in door.flows.run(FlowSource(name="hostile.mlab", yaml=yaml)):
            pass
    assert raised.value.text


async def test_a_request_beyond_the_limit_of_a_message_is_refused(door, classify) -> None:
    large = Value(media=MediaValue(type=MEDIA_TYPE_IMAGE, inline=bytes(22 * 1024 * 1024)))
    with pytest.raises(MeshError):
        async for _ in door.flows.run(classify, {"upload.file": large}):
            pass


async def test_runs_that_are_cancelled_at_any_moment_leave_nothing_running(mesh, door, classify) -> None:
    async def cut(seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                async for _ in door.flows.run(classify, a_cat()):
                    pass
        except TimeoutError:
            pass

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(cut(0.005 * number))
    async with asyncio.timeout(30):
        while True:
            page = await door.flows.list(page_size=1000)
            if all(execution.state != 1 for execution in page.executions):
                break
    await succeeds(door, classify, a_cat())
    assert CAT.exists()
