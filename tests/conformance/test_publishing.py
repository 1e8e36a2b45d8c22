"""What every transport that can publish owes to a producer."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_VIDEO
from mediamesh.api.stream.v1 import chunk_pb2, stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import StreamLimits, StreamMetadata
from mediamesh.wire.errors import AgentFailed, FailedPrecondition, InvalidRequest, MeshError, NotFound, PermissionDenied
from tests.conformance.making import make, read, text, until


async def test_what_is_published_is_what_is_read(streams, producing) -> None:
    opened = await streams.open()
    async with producing.publish(opened.stream_id, opened.publish_token) as publisher:
        assert publisher.epoch == 1
        await publisher.start(StreamMetadata(mime_type="text/plain"))
        for number in range(200):
            await publisher.send(text(f"{number} ü"))
        assert await publisher.end("length") == 202
        assert publisher.acknowledged == 202
    items = await read(streams, opened.stream_id)
    assert [item.sequence for item in items] == list(range(1, 203))
    assert items[0].payload.metadata.mime_type == "text/plain"
    assert [item.payload.data.content.text for item in items[1:-1]] == [f"{number} ü" for number in range(200)]
    assert items[-1].payload.metadata.reason == "length"


async def test_bytes_of_media_arrive_unchanged(streams, producing) -> None:
    data = bytes(range(256)) * 1024
    media = chunk_pb2.Media(
        media_type=MEDIA_TYPE_VIDEO, encoding=chunk_pb2.MEDIA_ENCODING_BINARY, binary=data, total_chunks=1
    )
    media.metadata.checksum = hashlib.sha256(data).hexdigest()
    opened = await streams.open()
    async with producing.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.send(chunk_pb2.Chunk(media=media, source="camera"))
        await publisher.end()
    for reader in (streams, producing):
        chunk = (await read(reader, opened.stream_id))[0].payload.data
        assert chunk.media == media
        assert chunk.source == "camera"


async def test_a_failure_is_published_with_its_details(streams, producing) -> None:
    opened = await streams.open()
    async with producing.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.fail(AgentFailed("The agent fell over.", agent="a"))
    (item,) = await read(streams, opened.stream_id)
    error = MeshError.from_status(item.payload.error)
    assert isinstance(error, AgentFailed)
    assert error.metadata == {"agent": "a"}


async def test_a_producer_that_comes_back_goes_on_where_it_was(streams, producing) -> None:
    opened = await streams.open()
    async with producing.publish(opened.stream_id, opened.publish_token, producer_id="p") as first:
        await first.send(text("a"))
    async with producing.publish(opened.stream_id, opened.publish_token, producer_id="p", epoch=first.epoch) as again:
        assert (again.epoch, again.last_sequence) == (first.epoch, 1)
        await again.send(text("b"))
        await again.end()
    items = await read(streams, opened.stream_id)
    assert [item.payload.data.content.text for item in items] == ["a", "b", ""]


async def test_a_second_producer_shuts_out_the_first(streams, producing) -> None:
    opened = await streams.open()
    with pytest.raises(FailedPrecondition) as raised:
        async with asyncio.timeout(60), producing.publish(opened.stream_id, opened.publish_token) as zombie:
            await zombie.send(text("a"))
            await zombie.flush()
            async with producing.publish(opened.stream_id, opened.publish_token) as second:
                assert (zombie.epoch, second.epoch) == (1, 2)
                await second.send(text("b"))
            await zombie.send(text("lost"))
            await zombie.flush()
    assert raised.value.metadata["epoch"] == "2"
    items = await read(streams, opened.stream_id, most=2)
    assert [item.payload.data.content.text for item in items] == ["a", "b"]


async def test_a_wrong_token_and_an_unknown_stream_are_refused(streams, producing) -> None:
    opened = await streams.open()
    with pytest.raises(PermissionDenied) as denied:
        async with producing.publish(opened.stream_id, "wrong"):
            pytest.fail("a wrong token was taken")
    assert denied.value.metadata["stream_id"] == opened.stream_id
    with pytest.raises(NotFound) as unknown:
        async with producing.publish("no-such-stream", opened.publish_token):
            pytest.fail("an unknown stream was taken")
    assert unknown.value.metadata["stream_id"] == "no-such-stream"


async def test_nothing_is_published_after_the_end(streams, producing) -> None:
    made = await make(streams, 3)
    with pytest.raises(FailedPrecondition, match="5") as raised:
        async with producing.publish(made.stream_id, made.token):
            pytest.fail("a stream that has ended was taken")
    assert raised.value.metadata["stream_id"] == made.stream_id


async def test_a_stream_that_is_closed_tells_its_producer(streams, producing) -> None:
    opened = await streams.open()
    with pytest.raises(FailedPrecondition):
        async with asyncio.timeout(60), producing.publish(opened.stream_id, opened.publish_token) as publisher:
            await publisher.send(text("a"))
            await publisher.flush()
            await streams.close(opened.stream_id, reason="enough")
            await publisher.send(text("b"))
            await publisher.flush()
    items = await read(streams, opened.stream_id)
    assert items[-1].sequence == 2


async def test_a_chunk_that_breaks_a_rule_is_refused_with_its_place(streams, producing) -> None:
    opened = await streams.open()
    with pytest.raises(InvalidRequest) as raised:
        async with asyncio.timeout(60), producing.publish(opened.stream_id, opened.publish_token) as publisher:
            await publisher.send(text("a"))
            await publisher.send(chunk_pb2.Chunk(progress=chunk_pb2.Progress(percent=101)))
    assert "percent" in raised.value.text
    assert raised.value.metadata["stream_id"] == opened.stream_id
    assert raised.value.metadata["sequence"] == "2"


async def test_a_held_producer_is_told_and_goes_on_when_the_reader_does(streams, producing) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_BLOCK, max_items=16)
    opened = await streams.open(limits=limits)
    async with asyncio.timeout(60), producing.publish(opened.stream_id, opened.publish_token) as publisher:
        for number in range(64):
            await publisher.send(text(str(number)))
        await until(lambda: publisher.is_blocked)
        reading = asyncio.create_task(read(streams, opened.stream_id))
        await publisher.end()
        assert not publisher.is_blocked
    assert [item.sequence for item in await reading] == list(range(1, 66))
