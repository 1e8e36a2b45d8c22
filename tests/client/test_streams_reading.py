from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import grpc
import pytest

from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.stream_pb2 import StreamGap
from mediamesh.client.streams import patience
from mediamesh.wire.errors import NotFound, OutOfRange, Overloaded, Unavailable
from tests.client.fake_streams import GO_AWAY, HEARTBEAT, SILENCE, FakeStreams, events, gap, last, serving_streams

AWAY = pb.SubscribeResponse(go_away=GO_AWAY)


@pytest.fixture
def fake() -> FakeStreams:
    return FakeStreams()  # type: ignore[abstract]


@pytest.fixture
async def streams(fake):
    async with serving_streams(fake) as client:
        yield client


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Return the pauses that the client makes; they take no time."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(patience, "asyncio", SimpleNamespace(sleep=sleep))
    return taken


async def read(streams, **options) -> list[int | tuple[int, int]]:
    """Return sequences, and gaps as pairs."""
    found: list[int | tuple[int, int]] = []
    async with aclosing(streams.subscribe("s", **options)) as items:
        async for item in items:
            is_gap = isinstance(item, StreamGap)
            found.append((item.first_sequence, item.last_sequence) if is_gap else item.sequence)
    return found


@pytest.mark.parametrize(
    "broken",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, AWAY],
    ids=["unavailable", "unknown", "internal", "cancelled", "go_away"],
)
async def test_a_reader_goes_on_where_it_was_and_gets_each_event_once(fake, streams, broken) -> None:
    fake.reads += [[events(1, 2), events(3), broken], [events(3, 4), broken], [HEARTBEAT, events(5), last(6)]]
    assert await read(streams) == [1, 2, 3, 4, 5, 6]
    assert [(request.after_sequence, request.allow_gap) for request in fake.read] == [(0, False), (3, True), (4, True)]
    assert len({request.subscriber_id for request in fake.read}) == 1


async def test_a_server_that_goes_away_is_left_at_once_but_not_again_and_again(fake, streams, pauses) -> None:
    fake.reads += [[events(1), AWAY], [AWAY], [AWAY], [last(2)]]
    assert await read(streams) == [1, 2]
    assert len(pauses) == 2


async def test_pauses_double_and_begin_anew_after_a_word(fake, streams, pauses) -> None:
    broken = [grpc.StatusCode.UNAVAILABLE]
    fake.reads += [broken] * 8 + [[HEARTBEAT, *broken], [last(1)]]
    assert await read(streams) == [1]
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 0.1]
    assert all(0.5 * full <= pause <= full for pause, full in zip(pauses, expected, strict=True))


async def test_what_is_lost_is_told_as_a_gap(fake, streams) -> None:
    fake.reads += [[events(1), gap(2, 4), events(5), gap(4, 6), events(9), last(10)]]
    assert await read(streams) == [1, (2, 4), 5, (6, 6), (7, 8), 9, 10]


async def test_a_place_that_is_no_longer_kept_is_an_error_at_first_and_a_gap_after_a_break(fake, streams) -> None:
    below = OutOfRange("no longer kept", stream_id="s", first_sequence=7)
    fake.reads += [[below]]
    with pytest.raises(OutOfRange):
        await read(streams, after_sequence=2)
    fake.reads += [[events(3), grpc.StatusCode.UNAVAILABLE], [below], [events(7), last(8)]]
    assert await read(streams, after_sequence=2) == [3, (4, 6), 7, 8]


@pytest.mark.parametrize("error", [NotFound("none"), Overloaded("too slow"), OutOfRange("future")], ids=repr)
async def test_what_the_server_says_of_the_request_is_final(fake, streams, error) -> None:
    fake.reads += [[events(1), error]]
    with pytest.raises(type(error)):
        await read(streams)


async def test_a_full_server_is_borne_by_a_reader_that_comes_back(fake, streams, pauses) -> None:
    full = Overloaded.retry("too many subscribers", 7)
    fake.reads += [[full]]
    with pytest.raises(Overloaded):
        await read(streams)
    fake.reads += [[events(1), grpc.StatusCode.UNAVAILABLE], [full], [last(2)]]
    assert await read(streams) == [1, 2]
    assert pauses[-1] == 7


@pytest.mark.stack
async def test_a_connection_that_falls_silent_is_left(fake, streams) -> None:
    # Where the machine stalls a connection may be left that would have spoken; the next one says it again.
    fake.reads += [[events(1), SILENCE], [SILENCE], *[[events(1), last(2)]] * 20]
    async with asyncio.timeout(30):
        assert await read(streams, heartbeat_seconds=0.2) == [1, 2]
    assert len(fake.read) >= 3
    assert fake.read[0].heartbeat_interval.ToMilliseconds() == 200


async def test_a_reader_at_the_end_of_an_ended_stream_is_done(fake, streams) -> None:
    fake.reads += [[]]
    assert await read(streams, after_sequence=9) == []


async def test_a_call_that_ends_before_the_stream_is_made_again(fake, streams) -> None:
    fake.reads += [[events(1)], [last(2)]]
    assert await read(streams) == [1, 2]


async def test_patience_ends(fake, streams, pauses) -> None:
    fake.reads += [[grpc.StatusCode.UNAVAILABLE]] * 3
    with pytest.raises(Unavailable):
        await read(streams, patience=-1)


async def test_a_reader_that_leaves_ends_its_call(fake, streams) -> None:
    fake.reads += [[events(1), SILENCE]]
    async with aclosing(streams.subscribe("s")) as items:
        await anext(items)
    async with asyncio.timeout(30):
        await fake.left.wait()


async def test_a_deadline_of_the_caller_ends_the_call(fake, streams) -> None:
    fake.reads += [[events(1), SILENCE]]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30) as deadline, aclosing(streams.subscribe("s")) as items:
            await anext(items)
            deadline.reschedule(asyncio.get_running_loop().time() + 0.5)
            await anext(items)
    async with asyncio.timeout(30):
        await fake.left.wait()
