"""Streams through the door: every edge, readers that do not read, servers that die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import aiohttp
import pytest
from aiohttp import web
from google.api.httpbody_pb2 import HttpBody

from mediamesh.api.stream.v1 import (
    stream_edge_service_pb2_grpc,
    stream_service_pb2,
    stream_service_pb2_grpc,
)
from mediamesh.api.stream.v1.chunk_pb2 import Chunk
from mediamesh.api.stream.v1.stream_pb2 import STREAM_EVENT_TYPE_STREAM_DATA, Stream, StreamEvent, StreamPayload
from mediamesh.client.channel import connect
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import http_status
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings

pytestmark = pytest.mark.stack

KIB = 1024
SERVICES = ("mediamesh.api.stream.v1.StreamService", "mediamesh.api.stream.v1.StreamEdgeService")


class Streams(stream_service_pb2_grpc.StreamServiceServicer):
    """Streams as the tests want them; the id of a stream says what it does.

    Attributes:
        written: Bytes that were taken of each stream that never ends, by the subscriber's id.
        subscribed: Subscribers that came, in order.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.written: dict[str, int] = {}
        self.subscribed: list[str] = []

    async def OpenStream(self, request, context):
        return stream_service_pb2.OpenStreamResponse(stream_id=f"of-{request.workspace_id}", ws_url="ws://here")

    async def GetStream(self, request, context):
        return stream_service_pb2.GetStreamResponse(stream=Stream(stream_id=request.stream_id, last_sequence=7))

    async def GetCapabilities(self, request, context):
        return stream_service_pb2.GetCapabilitiesResponse(runtime=self.name)

    async def CloseStream(self, request, context):
        return stream_service_pb2.CloseStreamResponse(stream=Stream(stream_id=request.stream_id))

    async def ListStreams(self, request, context):
        return stream_service_pb2.ListStreamsResponse(streams=[Stream(stream_id=request.workspace_id)])

    async def WatchStreams(self, request, context):
        yield stream_service_pb2.WatchStreamsResponse(resume_token="1")

    async def Subscribe(self, request, context):
        self.subscribed.append(request.subscriber_id)
        while request.stream_id == "endless":
            response = answer(request.after_sequence + 1, "x" * 1000)
            yield response
            self.written[request.subscriber_id] = self.written.get(request.subscriber_id, 0) + response.ByteSize()
        if request.stream_id == "quiet":
            yield answer(1, self.name)
            await asyncio.Event().wait()
        for sequence in range(request.after_sequence + 1, 5):
            yield answer(sequence, self.name)

    async def Publish(self, request_iterator, context):
        async for request in request_iterator:
            yield stream_service_pb2.PublishResponse(ack=stream_service_pb2.PublishAck(sequence=request.event.sequence))


class Edge(stream_edge_service_pb2_grpc.StreamEdgeServiceServicer):
    """Answers with what it was asked, and one line more when told."""

    def __init__(self) -> None:
        self.more = asyncio.Event()

    async def ReadStream(self, request, context):
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        kind = "application/x-ndjson" if "ndjson" in str(metadata.get("accept")) else "text/event-stream"
        asked = {key: metadata.get(key) for key in ("accept", "last-event-id")}
        line = {"stream_id": request.stream_id, "after": request.after, "envelope": request.envelope, **asked}
        yield HttpBody(content_type=kind, data=json.dumps(line).encode() + b"\n")
        if request.stream_id == "two":
            await self.more.wait()
            yield HttpBody(content_type=kind, data=b"the second line\n")


def answer(sequence: int, source: str) -> stream_service_pb2.SubscribeResponse:
    event = StreamEvent(sequence=sequence, payload=StreamPayload(data=Chunk(source=source)))
    return stream_service_pb2.SubscribeResponse(events=stream_service_pb2.StreamEvents(events=[event]))


def source_of(response) -> str:
    """Return who made the event of a response."""
    (event,) = response.events.events
    return str(event.payload.data.source)


def part_of(streams: Streams, edge: Edge | None = None) -> Part:
    def register(server) -> None:
        stream_service_pb2_grpc.add_StreamServiceServicer_to_server(streams, server)
        stream_edge_service_pb2_grpc.add_StreamEdgeServiceServicer_to_server(edge or Edge(), server)

    return Part(services=SERVICES, register=register)


def door_of(folder, *streams: int, **more) -> Door:
    port, admin_port, inside_port = free_ports(3)
    return Door(
        host="127.0.0.1",
        port=port,
        admin_port=admin_port,
        inside_port=inside_port,
        servers={"streams": [("127.0.0.1", number) for number in streams]},
        template=UpSettings().envoy_template,
        folder=folder / "envoy",
        access_log=folder / "access.jsonl",
        web=folder / "web",
        drain_seconds=0,
        **more,
    )


@asynccontextmanager
async def web_sockets() -> AsyncIterator[int]:
    """Serve WebSockets that say where they were asked for and then echo, and say that it is well."""

    async def talk(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.path_qs)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    async def well(request):
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/healthz", well), web.get("/{path:.*}", talk)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def replicas() -> list[Streams]:
    return [Streams("first"), Streams("second")]


@pytest.fixture(scope="module")
def edge() -> Edge:
    return Edge()


@pytest.fixture(scope="module")
async def door(tmp_path_factory, replicas, edge):
    """Return a door with two streams servers and one for WebSockets."""
    folder = tmp_path_factory.mktemp("door")
    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(serving(ServerSettings(grace_seconds=0), part_of(one, edge)))
            for one in replicas
        ]
        sockets = await stack.enter_async_context(web_sockets())
        door = door_of(folder, *ports, edge=[("127.0.0.1", sockets)])
        await stack.enter_async_context(running(envoy(door), folder / "envoy.log"))
        yield door


@pytest.fixture
async def http(door):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as session:
        yield session


@pytest.fixture
async def stub(door):
    async with connect(f"127.0.0.1:{door.port}") as channel:
        yield stream_service_pb2_grpc.StreamServiceStub(channel)


async def test_rest_opens_asks_and_closes(http) -> None:
    async with http.post("/streams/init", json={"workspaceId": "mine"}) as opened:
        assert (await opened.json())["stream_id"] == "of-mine"
    async with http.get("/v1/streams/abc") as found:
        assert (await found.json())["stream"]["last_sequence"] == "7"
    async with http.post("/v1/streams/abc:close", json={"reason": "enough"}) as closed:
        assert (await closed.json())["stream"]["stream_id"] == "abc"
    async with http.get("/api/v1/capabilities") as told:
        assert (await told.json())["runtime"] in {"first", "second"}


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
async def test_who_reads_over_plain_http_says_the_form_and_where_to_go_on(http, kind) -> None:
    headers = {"accept": kind, "last-event-id": "41", "accept-encoding": "gzip, br"}
    async with http.get("/api/v1/streams/abc?after=3&envelope=result", headers=headers) as read:
        assert (read.status, read.content_type) == (200, kind)
        assert "content-encoding" not in read.headers
        line = {"stream_id": "abc", "after": 3, "envelope": "result", "accept": kind, "last-event-id": "41"}
        assert await read.json(content_type=None) == line


async def test_a_line_is_there_as_soon_as_it_is_written(http, edge) -> None:
    async with asyncio.timeout(20), http.get("/api/v1/streams/two") as read:
        assert b'"stream_id": "two"' in await read.content.readline()
        edge.more.set()
        assert await read.content.readline() == b"the second line\n"


async def test_a_web_socket_reaches_the_server_for_web_sockets(http) -> None:
    async with http.ws_connect("/api/v1/streams/abc/ws?after=5") as socket:
        assert await socket.receive_str() == "/api/v1/streams/abc/ws?after=5"
        await socket.send_bytes(b"x" * 2**20)
        assert len(await socket.receive_bytes()) == 2**20


async def test_the_token_of_a_producer_is_in_no_log(door, http) -> None:
    async with http.ws_connect("/api/v1/streams/logged/ws?publish=1&token=secret") as socket:
        assert "secret" in await socket.receive_str()
    async with asyncio.timeout(20):
        while "logged" not in door.access_log.read_text():  # noqa: ASYNC110 - Envoy writes it now and then
            await asyncio.sleep(0.1)
    assert '"/api/v1/streams/logged/ws"' in door.access_log.read_text()
    assert "secret" not in door.access_log.read_text()


async def test_the_address_of_web_sockets_has_nothing_for_others(http) -> None:
    async with http.get("/api/v1/streams/abc/ws") as read:
        assert (read.status, (await read.json())["code"]) == (404, 5)


async def test_a_producer_talks_both_ways(stub) -> None:
    call = stub.Publish()
    for sequence in (1, 2):
        event = stream_service_pb2.PublishEvent(sequence=sequence, event_type=STREAM_EVENT_TYPE_STREAM_DATA)
        await call.write(stream_service_pb2.PublishRequest(event=event))
        assert (await call.read()).ack.sequence == sequence
    call.cancel()


async def test_grpc_web_reads_a_stream(http) -> None:
    request = stream_service_pb2.SubscribeRequest(stream_id="abc").SerializeToString()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    framed = b"\0" + len(request).to_bytes(4, "big") + request
    path = "/mediamesh.api.stream.v1.StreamService/Subscribe"
    async with http.post(path, data=framed, headers=headers) as answered:
        body = await answered.read()
    assert body.count(b"first") + body.count(b"second") == 4
    assert b"grpc-status:0" in body


async def test_servers_of_the_mesh_find_both_replicas_inside(door, replicas) -> None:
    sources: set[str] = set()
    async with asyncio.timeout(20), connect(f"127.0.0.1:{door.inside_port}") as channel:
        stub = stream_service_pb2_grpc.StreamServiceStub(channel)
        while sources != {"first", "second"}:  # a door is well, and so begins, when it knows that one of them is
            call = stub.Subscribe(stream_service_pb2.SubscribeRequest(stream_id="quiet"))
            sources.add(source_of(await call.read()))
            call.cancel()


@pytest.mark.stack
async def test_a_thousand_and_a_hundred_read_at_once_over_one_connection(stub) -> None:
    calls = [stub.Subscribe(stream_service_pb2.SubscribeRequest(stream_id="quiet")) for _ in range(1100)]
    async with asyncio.timeout(60):
        for call in calls:
            assert source_of(await call.read()) in {"first", "second"}
    for call in calls:
        call.cancel()


@pytest.mark.stack
async def test_readers_that_do_not_read_hold_little_and_hold_nobody_up(door, replicas, stub) -> None:
    """The 60 of them would fill a connection's window many times over."""
    names = [f"stalled-{number}" for number in range(60)]

    def written() -> dict[str, int]:
        return {name: sum(one.written.get(name, 0) for one in replicas) for name in names}

    async with AsyncExitStack() as stack:
        for name in names:
            _, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=KIB)
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            request = stream_service_pb2.SubscribeRequest(stream_id="endless", subscriber_id=name).SerializeToString()
            framed = b"\0" + len(request).to_bytes(4, "big") + request
            writer.write(
                b"POST /mediamesh.api.stream.v1.StreamService/Subscribe HTTP/1.1\r\nhost: door\r\n"
                b"content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(framed), framed)
            )
        async with asyncio.timeout(60):
            before: dict[str, int] = {}
            while (now := written()) != before or not all(now.values()):
                before = now
                await asyncio.sleep(1)  # nothing tells that no more is taken
            # Less than 256 KiB is what the reader's own kernel and Python take.
            assert max(now.values()) < 900 * KIB
            call = stub.Subscribe(stream_service_pb2.SubscribeRequest(stream_id="abc"))
            assert len([response async for response in call]) == 4


@pytest.mark.stack
async def test_a_reader_over_plain_http_waits_for_a_server_that_restarts(tmp_path) -> None:
    (port,) = free_ports(1)
    door = door_of(tmp_path, port)
    settings = ServerSettings(port=port, grace_seconds=0)
    async with AsyncExitStack() as stack:
        async with serving(settings, part_of(Streams("before"))):
            await stack.enter_async_context(running(envoy(door), tmp_path / "envoy.log"))
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{door.port}"))
        async with session.get("/v1/streams/abc") as asked:
            assert asked.status == 503  # nobody is there
        reading = asyncio.ensure_future(session.get("/api/v1/streams/abc"))
        await asyncio.sleep(2)  # longer than an outage that every call survives
        assert not reading.done()
        async with serving(settings, part_of(Streams("after"))), await reading as read:
            assert read.status == 200


async def test_a_door_is_well_while_one_replica_is(tmp_path) -> None:
    (nobody,) = free_ports(1)
    async with AsyncExitStack() as stack:
        streams = Streams("only")
        port = await stack.enter_async_context(serving(ServerSettings(), part_of(streams)))
        door = door_of(tmp_path, nobody, port)
        await stack.enter_async_context(running(envoy(door), tmp_path / "envoy.log"))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{door.port}"))
        stub = stream_service_pb2_grpc.StreamServiceStub(channel)
        for _ in range(20):
            call = stub.Subscribe(stream_service_pb2.SubscribeRequest(stream_id="abc"))
            assert [source_of(response) async for response in call] == ["only"] * 4


async def test_a_door_is_not_well_without_its_server_for_web_sockets(tmp_path) -> None:
    (nobody,) = free_ports(1)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(ServerSettings(), part_of(Streams("only"))))
        door = door_of(tmp_path, port, edge=[("127.0.0.1", nobody)])
        program = replace(envoy(door), probe=partial(http_status, f"http://127.0.0.1:{door.admin_port}/ready"))
        await stack.enter_async_context(running(program, tmp_path / "envoy.log"))
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{door.port}"))
        async with asyncio.timeout(20):
            while await calls_of(session) != 200:  # noqa: ASYNC110 - until the streams server is known to be well
                await asyncio.sleep(0.1)
        async with session.get("/healthz") as answered:
            assert answered.status == 503


async def calls_of(session: aiohttp.ClientSession) -> int:
    async with session.get("/v1/streams/abc") as answered:
        return answered.status
