"""Stream pins of a run are streams of the broker, and no trouble with the broker is trouble of the run."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.client.channel import connect
from mediamesh.client.streams import StreamClient
from mediamesh.kit.serve import serving
from mediamesh.streams.app import app as streams_app
from mediamesh.streams.settings import Settings as StreamsSettings
from mediamesh.wire.errors import AgentFailed, Cancelled, MeshError, StreamTimeout
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

pytestmark = pytest.mark.slow

SUCCEEDED = execution_pb2.EXECUTION_STATE_SUCCEEDED
EDGE = "make.stream>count.stream"
COUNT = flow("make test.producer, params: {count: 200}", "count test.consumer", edges=EDGE)


@asynccontextmanager
async def streaming(port=0, **changes):
    """Serve streams, and yield the port and a client."""
    own = StreamsSettings(**{"valkey_url": "", "grace_seconds": 0, "port": port, **changes})
    async with streams_app(own) as part, serving(own, part) as taken, connect(f"127.0.0.1:{taken}") as channel:
        yield taken, StreamClient(channel)


@pytest.fixture(scope="module")
async def streams():
    async with streaming() as running:
        yield running


@pytest.fixture(scope="module")
async def publishing(settings, streams):
    """Return an orchestrator that publishes, and a client of the streams server."""
    async with orchestrating(settings(streams_address=f"127.0.0.1:{streams[0]}")) as mesh:
        yield mesh, streams[1]


async def events_of(mesh, source):
    return [event async for event in mesh.flows.run(source)]


def of_kind(events, kind):
    return [event for event in events if event.WhichOneof("event") == kind]


async def available(events):
    """Return the id of the stream that becomes available next."""
    async for event in events:
        if event.HasField("stream_available"):
            return event.stream_available.stream_id
    raise AssertionError("no stream became available")


async def read(client, stream_id):
    return [event async for event in client.subscribe(stream_id)]


async def test_a_stream_pin_can_be_read_from_the_broker(publishing) -> None:
    mesh, client = publishing
    events = await events_of(mesh, COUNT)
    assert events[-1].execution_finished.state == SUCCEEDED
    (opened,), (complete,) = of_kind(events, "stream_available"), of_kind(events, "stream_complete")
    assert opened.node_id == complete.node_id == "make"
    assert opened.stream_available.pin == "stream"
    assert opened.stream_available.stream_id == complete.stream_complete.stream_id
    assert opened.sequence < complete.sequence < events[-1].sequence

    found = await read(client, opened.stream_available.stream_id)
    assert [event.sequence for event in found] == list(range(1, 203))
    assert found[0].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_START
    assert found[-1].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_END
    told = [event.node_chunk.chunk for event in of_kind(events, "node_chunk")]
    assert [event.payload.data.content for event in found[1:-1]] == [chunk.content for chunk in told]

    stream = await client.get(found[0].stream_id)
    assert (stream.execution_id, stream.node_id, stream.pin_name) == (events[0].execution_id, "make", "stream")
    assert stream.workspace_id == "default"
    assert stream.limits.overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST


async def test_a_stream_can_be_read_while_its_node_still_works(publishing, release) -> None:
    mesh, client = publishing
    async with aclosing(mesh.flows.run(flow("make test.producer"))) as events:
        stream_id = await available(events)
        async with asyncio.timeout(10), aclosing(client.subscribe(stream_id)) as reader:
            assert (await anext(reader)).event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_START
            assert (await anext(reader)).payload.data.content.text == "x"
        release.set()
        last = [event async for event in events][-1]
    assert last.execution_finished.state == SUCCEEDED


async def test_the_stream_of_a_node_that_fails_ends_with_its_error(publishing) -> None:
    mesh, client = publishing
    events = await events_of(mesh, flow("make test.failing"))
    (opened,) = of_kind(events, "stream_available")
    last = (await read(client, opened.stream_available.stream_id))[-1]
    assert last.event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR
    error = MeshError.from_status(last.payload.error)
    assert isinstance(error, AgentFailed)
    assert error.text == "The model said no."
    assert of_kind(events, "stream_complete")


async def test_cancelling_a_run_ends_its_streams_with_an_error(publishing, agents, release) -> None:
    mesh, client = publishing
    execution = await mesh.flows.start(flow("make test.producer"))
    async with asyncio.timeout(10), aclosing(mesh.flows.watch(execution.execution_id)) as events:
        stream_id = await available(events)
    await mesh.flows.cancel(execution.execution_id)
    async with asyncio.timeout(10):
        last = (await read(client, stream_id))[-1]
    assert isinstance(MeshError.from_status(last.payload.error), Cancelled)
    told = [event async for event in mesh.flows.watch(execution.execution_id)]
    assert of_kind(told, "stream_complete")
    assert told[-1].HasField("execution_finished")


async def test_a_run_goes_on_where_there_is_no_streams_server(settings, caplog) -> None:
    async with orchestrating(settings(streams_address="127.0.0.1:9")) as mesh:
        with caplog.at_level(logging.WARNING, "mediamesh.orchestrator"):
            events = await events_of(mesh, COUNT)
    assert events[-1].execution_finished.state == SUCCEEDED
    assert not of_kind(events, "stream_available")
    assert "the stream make.stream is not published to its end" in caplog.text


async def test_a_run_goes_on_when_the_streams_server_goes_away(settings, agents, release, caplog) -> None:
    async with AsyncExitStack() as server:
        port, _ = await server.enter_async_context(streaming())
        own = settings(streams_address=f"127.0.0.1:{port}", streams_patience_seconds=3)
        async with (
            orchestrating(own) as mesh,
            aclosing(mesh.flows.run(flow("make test.producer", "count test.consumer", edges=EDGE))) as events,
        ):
            await available(events)
            await server.aclose()
            release.set()
            rest = [event async for event in events]
    assert rest[-1].execution_finished.state == SUCCEEDED
    assert of_kind(rest, "stream_complete")
    assert "the stream make.stream is not published to its end" in caplog.text


async def test_a_stream_that_the_broker_refuses_does_not_fail_the_run(settings, caplog) -> None:
    async with (
        streaming(max_concurrent_streams=1) as (port, client),
        orchestrating(settings(streams_address=f"127.0.0.1:{port}")) as mesh,
    ):
        await client.open()
        events = await events_of(mesh, COUNT)
    assert events[-1].execution_finished.state == SUCCEEDED
    assert not of_kind(events, "stream_available")
    assert "is not published to its end" in caplog.text


async def test_what_somebody_else_closes_does_not_fail_the_run(publishing, release) -> None:
    mesh, client = publishing
    async with aclosing(mesh.flows.run(flow("make test.producer"))) as events:
        await client.close(await available(events))
        release.set()
        rest = [event async for event in events]
    assert rest[-1].execution_finished.state == SUCCEEDED
    assert of_kind(rest, "stream_complete")


async def test_an_answer_that_outlives_its_time_says_so_to_the_run_and_to_its_readers(publishing) -> None:
    mesh, client = publishing
    events = await events_of(mesh, flow("a test.outliving"))
    (failed,), (opened,) = of_kind(events, "node_failed"), of_kind(events, "stream_available")
    error = MeshError.from_status(failed.node_failed.error)
    assert isinstance(error, StreamTimeout)
    assert error.number == "E2011"
    last = (await read(client, opened.stream_available.stream_id))[-1]
    assert isinstance(MeshError.from_status(last.payload.error), StreamTimeout)


async def test_the_heartbeat_that_a_module_declares_is_that_of_its_stream(publishing) -> None:
    mesh, client = publishing
    events = await events_of(mesh, flow("a test.answerer, timeout: 20"))
    (opened,) = of_kind(events, "stream_available")
    limits = (await client.get(opened.stream_available.stream_id)).limits
    assert limits.heartbeat_interval.ToMilliseconds() == 200
    assert limits.max_duration.ToSeconds() == 30
