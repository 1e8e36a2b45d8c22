from __future__ import annotations

import asyncio

import grpc
import pytest

from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import OVERFLOW_POLICY_BLOCK, StreamGap, StreamMetadata
from mediamesh.wire.errors import (
    Cancelled,
    FailedPrecondition,
    MeshError,
    OutOfRange,
    PermissionDenied,
    StreamTimeout,
    Unavailable,
)
from tests.client.fake_streams import DATA, END, GO_AWAY, SILENCE, FakeStreams, serving_streams

AWAY = pb.PublishResponse(go_away=GO_AWAY)
BROKEN = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def fake() -> FakeStreams:
    return FakeStreams()  # type: ignore[abstract]


@pytest.fixture
async def streams(fake):
    async with serving_streams(fake) as client:
        yield client


def text(words: str) -> Chunk:
    return Chunk(content=TextContent(text=words))


async def until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_events_are_numbered_and_filled_in(fake, streams) -> None:
    async with streams.publish("s", "t") as publisher:
        assert await publisher.start(StreamMetadata(mime_type="text/plain")) == 1
        assert await publisher.send(text("a")) == 2
        assert await publisher.send(text("b")) == 3
        assert await publisher.end() == 4
        assert publisher.acknowledged == 4
    assert [event.sequence for event in fake.stored] == [1, 2, 3, 4]
    assert [event.payload.data.sequence_number for event in fake.stored[1:3]] == [1, 2]
    assert all(event.payload.data.HasField("timestamp") for event in fake.stored[1:3])
    assert fake.stored[0].payload.metadata.mime_type == "text/plain"
    assert fake.stored[3].payload.metadata.reason == "stop"


@pytest.mark.parametrize("then", [BROKEN, AWAY, grpc.StatusCode.INTERNAL], ids=["broken", "go_away", "reset"])
async def test_what_is_not_acknowledged_is_sent_again_by_the_same_producer(fake, streams, then) -> None:
    fake.writes += [{"take": 3, "acks": False, "then": [then]}, {"take": 2, "then": [then]}]
    async with streams.publish("s", "t") as publisher:
        for number in range(10):
            await publisher.send(text(str(number)))
        await publisher.end()
    assert [event.sequence for event in fake.stored] == list(range(1, 12))
    assert fake.arrived == [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11]]
    assert {opening.producer_id for opening in fake.opened} == {publisher.producer_id}
    assert [opening.epoch for opening in fake.opened] == [0, 1, 1]


async def test_leaving_waits_until_all_is_stored_and_does_not_end_the_stream(fake, streams) -> None:
    fake.writes += [{"take": 1, "acks": False, "then": [BROKEN]}]
    async with streams.publish("s", "t") as publisher:
        await publisher.send(text("a"))
    assert publisher.acknowledged == 1
    assert [event.event_type for event in fake.stored] == [DATA]


async def test_a_second_producer_goes_on_after_the_first(fake, streams) -> None:
    async with streams.publish("s", "t") as first:
        await first.start()
        await first.send(text("a"))
    async with streams.publish("s", "t") as second:
        assert second.last_sequence == 2
        assert second.epoch == first.epoch + 1
        assert await second.send(text("b")) == 3
    assert fake.stored[-1].payload.data.sequence_number == 2


@pytest.mark.parametrize(
    "bounds", [{"max_unacknowledged": 3}, {"max_unacknowledged_bytes": 350}], ids=["items", "bytes"]
)
async def test_send_waits_while_too_much_is_not_acknowledged(fake, streams, bounds) -> None:
    fake.hold.clear()
    async with streams.publish("s", "t", **bounds) as publisher:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(100):
                    await publisher.send(text("x" * 80))
        assert publisher.last_sequence == 3
        fake.hold.set()
        async with asyncio.timeout(30):
            assert await publisher.send(text("y")) == 4
    assert len(fake.stored) == 4


async def test_an_event_larger_than_the_bound_goes_alone(fake, streams) -> None:
    async with streams.publish("s", "t", max_unacknowledged_bytes=10) as publisher:
        await publisher.send(text("x" * 1000))
        await publisher.send(text("x" * 1000))
    assert len(fake.stored) == 2


async def test_a_fenced_producer_is_told_wherever_it_waits(fake, streams) -> None:
    fenced = FailedPrecondition("A producer with epoch 2 has taken over.", epoch=2)
    fake.writes += [{"take": 2, "then": [fenced], "acks": False}]
    with pytest.raises(FailedPrecondition, match="epoch 2"):
        async with streams.publish("s", "t") as publisher:
            await publisher.send(text("a"))
            await publisher.send(text("b"))
            with pytest.raises(FailedPrecondition, match="epoch 2"):
                await publisher.flush()
            await publisher.send(text("c"))
    assert len(fake.opened) == 1


async def test_a_refusal_comes_on_entering(fake, streams) -> None:
    fake.writes += [{"refuse": PermissionDenied("wrong token")}]
    with pytest.raises(PermissionDenied):
        async with streams.publish("s", "t"):
            pytest.fail("not reached")


async def test_an_end_whose_acknowledgement_was_lost_is_an_end(fake, streams) -> None:
    fake.writes += [{"take": 2, "acks": False, "then": [BROKEN]}]
    async with streams.publish("s", "t") as publisher:
        await publisher.send(text("a"))
        assert await publisher.end() == 2
    assert len(fake.opened) == 2
    assert fake.stored[-1].event_type == END


async def test_a_failure_whose_acknowledgement_was_lost_is_an_end_but_not_that_of_somebody_else(fake, streams) -> None:
    ended = FailedPrecondition("The stream ended with event 1.")
    fake.writes += [{"take": 1, "acks": False, "then": [ended]}]
    fake.failure = MeshError("no").to_status()
    async with streams.publish("s", "t") as publisher:
        assert await publisher.fail(MeshError("no")) == 1
    fake.writes += [{"take": 1, "acks": False, "then": [ended]}]
    fake.stored.clear()
    fake.failure = StreamTimeout("It has lived longer than 60 s.").to_status()
    with pytest.raises(FailedPrecondition, match="ended with event 1"):
        async with streams.publish("s", "t") as publisher:
            await publisher.fail(MeshError("no"))


async def test_nothing_follows_the_end(fake, streams) -> None:
    async with streams.publish("s", "t") as publisher:
        await publisher.fail(MeshError("no"))
        with pytest.raises(FailedPrecondition, match="event 1"):
            await publisher.send(text("a"))
    assert fake.stored[0].payload.error.message == "no"


async def test_a_stream_that_lost_what_it_had_acknowledged_is_an_error(fake, streams) -> None:
    has_lost = asyncio.Event()
    fake.writes += [{"take": 2, "then": [has_lost, BROKEN]}]
    with pytest.raises(OutOfRange, match="has acknowledged event 2 and now ends at 0"):
        async with streams.publish("s", "t") as publisher:
            await publisher.send(text("a"))
            await publisher.send(text("b"))
            await until(lambda: publisher.acknowledged == 2)
            fake.stored.clear()
            has_lost.set()
            await publisher.send(text("c"))


async def test_a_server_that_acknowledges_nothing_is_left(fake, streams) -> None:
    fake.writes += [{"take": 1, "acks": False, "then": [SILENCE]}]
    async with asyncio.timeout(30), streams.publish("s", "t") as publisher:
        publisher._conversation._link._silence = 0.3  # of this connection alone: the next one may be slow
        await publisher.send(text("a"))
        await publisher.send(text("b"))
    assert [event.sequence for event in fake.stored] == [1, 2]
    assert len(fake.opened) == 2


@pytest.mark.stack
async def test_a_producer_that_is_held_or_idle_keeps_its_connection(fake, streams) -> None:
    held = pb.PublishResponse(notice=pb.PolicyNotice(overflow=OVERFLOW_POLICY_BLOCK, blocked=True))
    fake.writes += [{"take": 2, "acks": False, "then": [held, SILENCE]}]
    async with streams.publish("s", "t") as publisher:
        link = publisher._conversation._link
        link._silence, patient = 0.2, link._silence
        link._expect()
        await asyncio.sleep(0.5)
        assert len(fake.opened) == 1
        link._silence = patient  # an answer is due now, and may take its time
        await publisher.send(text("a"))
        await publisher.send(text("b"))
        await until(lambda: publisher.is_blocked)
        link._silence = 0.2
        await publisher.send(text("c"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await publisher.flush()
        assert len(fake.opened) == 1
        publisher._outbox.settle(3)


async def test_what_the_policy_drops_is_counted(fake, streams) -> None:
    dropped = pb.PublishResponse(notice=pb.PolicyNotice(dropped=StreamGap(first_sequence=2, last_sequence=4)))
    fake.writes += [{"take": 1, "then": [dropped, AWAY]}]
    async with streams.publish("s", "t") as publisher:
        await publisher.send(text("a"))
        await until(lambda: publisher.dropped)
        assert publisher.dropped == 3


async def test_an_exception_in_the_block_leaves_at_once(fake, streams) -> None:
    fake.hold.clear()
    with pytest.raises(KeyError):
        async with asyncio.timeout(30), streams.publish("s", "t") as publisher:
            await publisher.send(text("a"))
            raise KeyError


async def test_a_producer_that_leaves_ends_what_waits_for_it_and_sends_nothing_more(fake, streams) -> None:
    fake.hold.clear()
    waiting = []
    with pytest.raises(KeyError):
        async with streams.publish("s", "t", max_unacknowledged=1) as publisher:
            await publisher.send(text("a"))
            waiting += [asyncio.create_task(publisher.flush()), asyncio.create_task(publisher.send(text("b")))]
            await asyncio.sleep(0)
            waiting.append(publisher.send(text("c")))  # which begins when it is waited for
            raise KeyError
    for waits in waiting:
        async with asyncio.timeout(30):
            with pytest.raises(Cancelled, match="has left stream s"):
                await waits


async def test_patience_ends(fake, streams) -> None:
    fake.writes += [{"refuse": Unavailable("no store")}] * 3
    with pytest.raises(Unavailable):
        async with streams.publish("s", "t", patience=-1):
            pytest.fail("not reached")
