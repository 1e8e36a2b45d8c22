"""What every transport owes to a reader."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamLimits, StreamMetadata
from mediamesh.streams.metrics import COUNTS
from mediamesh.wire.errors import AgentFailed, MeshError, NotFound, OutOfRange
from tests.conformance.making import make, read, text, until

READERS = 200


def sequences(items) -> list[int]:
    assert all(isinstance(item, StreamEvent) for item in items), items
    return [item.sequence for item in items]


def gap(first: int, last: int) -> StreamGap:
    return StreamGap(first_sequence=first, last_sequence=last)


async def test_a_live_reader_gets_every_event_once_in_order_and_as_it_was_sent(streams, transport) -> None:
    opened = await streams.open(node_id="writer", pin_name="words", mime_type="text/plain")
    reading = asyncio.create_task(read(transport, opened.stream_id))
    async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.start(StreamMetadata(mime_type="text/plain", total_chunks=300))
        for number in range(1, 301):
            await publisher.send(text(f"{number} ü\u2028\n"), StreamMetadata(chunk_index=number))
            if number % 50 == 0:
                await publisher.flush()
        await publisher.end("length")
    items = await reading
    assert sequences(items) == list(range(1, 303))
    assert {(item.stream_id, item.node_id, item.pin_name) for item in items} == {(opened.stream_id, "writer", "words")}
    assert all(item.HasField("timestamp") for item in items)
    assert items[0].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_START
    assert items[0].payload.metadata == StreamMetadata(mime_type="text/plain", total_chunks=300)
    chunks = items[1:-1]
    assert [item.payload.data.content.text for item in chunks] == [f"{number} ü\u2028\n" for number in range(1, 301)]
    assert [item.payload.data.sequence_number for item in chunks] == list(range(1, 301))
    assert [item.payload.metadata.chunk_index for item in chunks] == list(range(1, 301))
    assert items[-1].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_END
    assert items[-1].payload.metadata.reason == "length"


async def test_a_reader_resumes_from_any_position(streams, transport) -> None:
    made = await make(streams, 18)
    for after in range(21):
        assert sequences(await read(transport, made.stream_id, after_sequence=after)) == list(range(after + 1, 21))


async def test_a_late_reader_sees_how_the_stream_ended(streams, transport) -> None:
    made = await make(streams, 3)
    items = await read(transport, made.stream_id)
    assert sequences(items) == [1, 2, 3, 4, 5]
    assert items[-1].payload.metadata.reason == "stop"


async def test_a_stream_that_failed_ends_with_its_error(streams, transport) -> None:
    made = await make(streams, 1, is_ended=False)
    async with streams.publish(made.stream_id, made.token) as publisher:
        await publisher.fail(AgentFailed("The agent fell over.", agent="a"))
    items = await read(transport, made.stream_id)
    assert items[-1].event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR
    error = MeshError.from_status(items[-1].payload.error)
    assert isinstance(error, AgentFailed)
    assert error.metadata == {"agent": "a"}


async def test_a_heartbeat_tells_the_newest_event(streams, transport) -> None:
    limits = StreamLimits()
    limits.heartbeat_interval.FromMilliseconds(200)
    made = await make(streams, 4, is_ended=False, limits=limits)
    async with asyncio.timeout(60):
        assert await transport.heartbeat(made.stream_id, 0) == 5
        assert await transport.heartbeat(made.stream_id, 5) == 5


@pytest.fixture
async def trimmed(streams):
    """Return a stream of events 1 to 101 of which the last sixteen are kept."""
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_items=16)
    return await make(streams, 99, limits=limits)


async def test_what_is_no_longer_kept_is_a_gap_for_who_reads_all(transport, trimmed) -> None:
    first, *rest = await read(transport, trimmed.stream_id)
    assert first == gap(1, 85)
    assert sequences(rest) == list(range(86, 102))


async def test_a_position_below_the_floor_is_an_error_that_names_the_first_event(transport, trimmed) -> None:
    with pytest.raises(OutOfRange, match="no longer kept") as raised:
        await read(transport, trimmed.stream_id, after_sequence=7)
    assert raised.value.metadata["stream_id"] == trimmed.stream_id
    assert raised.value.metadata["first_sequence"] == "86"


async def test_who_bears_gaps_goes_on_below_the_floor(transport, trimmed) -> None:
    first, *rest = await read(transport, trimmed.stream_id, after_sequence=7, allow_gap=True)
    assert first == gap(8, 85)
    assert sequences(rest) == list(range(86, 102))


async def test_events_that_the_policy_drops_are_gaps_for_a_live_reader(streams, transport) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_NEWEST, max_items=16)
    opened = await streams.open(limits=limits)
    async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
        for number in range(40):
            await publisher.send(text(str(number)))
        await publisher.flush()
        assert publisher.dropped == 24
        await publisher.end()
    *kept, lost, end = await read(transport, opened.stream_id)
    assert sequences(kept) == list(range(1, 17))
    assert lost == gap(17, 40)
    assert end.sequence == 41


async def test_an_unknown_stream_is_named(transport) -> None:
    with pytest.raises(NotFound, match="no-such-stream") as raised:
        await read(transport, "no-such-stream")
    assert raised.value.metadata["stream_id"] == "no-such-stream"


async def test_a_position_in_the_future_is_an_error_that_names_the_newest_event(streams, transport) -> None:
    made = await make(streams, 3)
    with pytest.raises(OutOfRange) as raised:
        await read(transport, made.stream_id, after_sequence=6)
    assert raised.value.metadata["newest"] == "5"


async def test_a_reader_that_leaves_frees_the_server(streams, transport) -> None:
    before = COUNTS.subscribers
    made = await make(streams, 2, is_ended=False)
    async with aclosing(transport.subscribe(made.stream_id)) as items:
        assert (await anext(items)).sequence == 1
        assert COUNTS.subscribers == before + 1
    await until(lambda: COUNTS.subscribers == before)


async def test_a_reader_whose_deadline_passes_frees_the_server(streams, transport) -> None:
    before = COUNTS.subscribers
    made = await make(streams, 2, is_ended=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), aclosing(transport.subscribe(made.stream_id, after_sequence=3)) as items:
            await anext(items)
    await until(lambda: COUNTS.subscribers == before)


async def test_two_hundred_readers_get_the_same(streams, transport) -> None:
    opened = await streams.open()
    before = COUNTS.subscribers
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read(transport, opened.stream_id)) for _ in range(READERS)]
        await until(lambda: COUNTS.subscribers == before + READERS)
        async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
            for number in range(20):
                await publisher.send(text(str(number)))
            await publisher.end()
    expected = await read(streams, opened.stream_id)
    assert sequences(expected) == list(range(1, 22))
    assert all(reader.result() == expected for reader in readers)
    await until(lambda: COUNTS.subscribers == before)  # or the next test counts some that are about to leave
