"""The streams server over gRPC, as any client sees it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mediamesh.api.stream.v1.stream_service_pb2 import (
    CloseStreamRequest,
    GetCapabilitiesRequest,
    GetStreamRequest,
    ListStreamsRequest,
    OpenStreamRequest,
    PublishOpen,
    PublishRequest,
    SubscribeRequest,
    WatchStreamsRequest,
)
from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client.channel import connect
from mediamesh.kit.serve import serving
from mediamesh.streams.app import app
from mediamesh.streams.settings import Settings
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, NotFound, PermissionDenied
from tests.streams.producing import data, end, limits, start


@asynccontextmanager
async def serving_streams(**changes):
    """Run a streams server, and yield its address."""
    own = Settings(**{"valkey_url": "", "grace_seconds": 2, "ack_seconds": 0.01, **changes})
    async with AsyncExitStack() as stack:
        part = await stack.enter_async_context(app(own))
        port = await stack.enter_async_context(serving(own, part))
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
async def stub():
    async with serving_streams() as address, connect(address) as channel:
        yield StreamServiceStub(channel)


async def frames(opened, events, **producer):
    yield PublishRequest(open=PublishOpen(stream_id=opened.stream_id, publish_token=opened.publish_token, **producer))
    for event in events:
        yield PublishRequest(event=event)


async def publish(stub, opened, events, **producer):
    return [response async for response in stub.Publish(frames(opened, events, **producer))]


async def read(stub, opened, after=0):
    call = stub.Subscribe(SubscribeRequest(stream_id=opened.stream_id, after_sequence=after))
    return [event async for response in call for event in response.events.events]


async def test_a_stream_is_opened_published_and_read(stub) -> None:
    opened = await stub.OpenStream(OpenStreamRequest(node_id="node", pin_name="text"))
    assert opened.ws_url == f"ws://127.0.0.1:8080/api/v1/streams/{opened.stream_id}/ws"
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        live = tasks.create_task(read(stub, opened))
        heard = await publish(stub, opened, [start(), data(2, "Hel"), data(3, "lo"), end(4)])
    assert heard[0].opened.epoch == 1
    assert heard[-1].ack.sequence == 4
    assert "".join(event.payload.data.content.text for event in live.result()) == "Hello"
    assert [event.sequence for event in live.result()] == [1, 2, 3, 4]
    assert await read(stub, opened, after=2) == live.result()[2:]


async def test_what_is_wrong_with_a_frame_names_stream_and_position_after_what_is_acknowledged(stub) -> None:
    opened = await stub.OpenStream(OpenStreamRequest())
    bad = data(3)
    bad.payload.metadata.mime_type = "x" * 200
    heard = []
    with pytest.raises(InvalidRequest) as raised:
        async for response in stub.Publish(frames(opened, [start(), data(2), bad])):
            heard.append(response)
    assert raised.value.metadata == {"stream_id": opened.stream_id, "sequence": "3"}
    assert heard[-1].ack.sequence == 2


async def test_the_first_frame_opens_and_only_the_first(stub) -> None:
    opened = await stub.OpenStream(OpenStreamRequest())

    async def twice():
        async for frame in frames(opened, []):
            yield frame
            yield frame

    async def never():
        yield PublishRequest(event=data(1))

    for wrong in (twice(), never()):
        with pytest.raises(InvalidRequest) as raised:
            [response async for response in stub.Publish(wrong)]
        assert raised.value.violations[0][0] == "open"


async def test_refusals_come_as_statuses(stub) -> None:
    opened = await stub.OpenStream(OpenStreamRequest(limits=limits()))
    with pytest.raises(PermissionDenied):
        await publish(stub, type(opened)(stream_id=opened.stream_id, publish_token="guessed"), [])
    with pytest.raises(NotFound):
        await read(stub, type(opened)(stream_id="nobody"))
    await publish(stub, opened, [end(1)])
    with pytest.raises(FailedPrecondition) as raised:
        await publish(stub, opened, [data(2)])
    assert raised.value.metadata["last_sequence"] == "1"


async def test_streams_are_told_of_got_listed_and_closed(stub) -> None:
    workspace = "told"
    watching = aiter(stub.WatchStreams(WatchStreamsRequest(workspace_id=workspace)))
    assert (await anext(watching)).HasField("heartbeat")
    opened = await stub.OpenStream(OpenStreamRequest(workspace_id=workspace))
    assert (await anext(watching)).stream_available.stream == opened.stream
    closed = await stub.CloseStream(CloseStreamRequest(stream_id=opened.stream_id, reason="enough"))
    assert closed.stream.end.reason == "enough"
    assert (await anext(watching)).stream_complete.stream == closed.stream
    assert (await stub.GetStream(GetStreamRequest(stream_id=opened.stream_id))).stream == closed.stream
    assert (await stub.ListStreams(ListStreamsRequest(workspace_id=workspace))).streams == [closed.stream]
    await watching.aclose()


async def test_capabilities_are_told(stub) -> None:
    told = await stub.GetCapabilities(GetCapabilitiesRequest())
    assert told.runtime == "mediamesh"
    assert told.capabilities.streaming
    assert "sse" in told.capabilities.supported_transports


async def test_a_server_that_drains_sends_everybody_elsewhere() -> None:
    async with AsyncExitStack() as server:
        channel = connect(await server.enter_async_context(serving_streams()))
        stub = StreamServiceStub(channel)
        opened = await stub.OpenStream(OpenStreamRequest())
        hold = asyncio.Event()

        async def producing():
            async for frame in frames(opened, [start()]):
                yield frame
            await hold.wait()

        publishing = aiter(stub.Publish(producing()))
        await anext(publishing)
        assert (await anext(publishing)).ack.sequence == 1
        reading = aiter(stub.Subscribe(SubscribeRequest(stream_id=opened.stream_id)))
        await anext(reading)
        watching = aiter(stub.WatchStreams(WatchStreamsRequest()))
        await anext(watching)
        stopping = asyncio.create_task(server.aclose())
        assert [response.go_away.resume_token async for response in reading] == ["1"]
        assert [response.go_away.resume_token async for response in publishing][-1] == "1"
        assert [response.HasField("go_away") async for response in watching][-1]
        hold.set()
        await stopping
        await channel.close()
