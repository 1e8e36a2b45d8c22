"""The broker over either store: order, resumption, policies, fencing, ends."""

from __future__ import annotations

import asyncio
import copy
import itertools
from contextlib import AsyncExitStack, aclosing, suppress

import pytest

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamHeartbeat
from mediamesh.api.stream.v1.stream_service_pb2 import (
    CloseStreamRequest,
    ListStreamsRequest,
    OpenStreamRequest,
    SubscribeRequest,
    SubscribeResponse,
    WatchStreamsRequest,
)
from mediamesh.streams.identity import new_id
from mediamesh.streams.log.memory import Memory
from mediamesh.streams.metrics import COUNTS
from mediamesh.streams.tail import BATCH_BYTES
from mediamesh.wire.errors import (
    FailedPrecondition,
    InvalidRequest,
    MeshError,
    NotFound,
    OutOfRange,
    Overloaded,
    PermissionDenied,
    StreamTimeout,
    Unavailable,
)
from tests.streams.producing import (
    broker_over,
    collect,
    data,
    end,
    limits,
    opened_stream,
    opening_of,
    publish,
    read,
    start,
)


@pytest.fixture(params=["memory", "valkey"])
def kept(request):
    """Return where streams are kept."""
    return {"valkey_url": request.getfixturevalue("valkey_url")} if request.param == "valkey" else {"memory": Memory()}


@pytest.fixture
async def brokers(kept):
    """Return two replicas over one store."""
    async with broker_over(**kept) as one, broker_over(**kept, replica="two") as two:
        yield one, two


@pytest.fixture
def broker(brokers):
    return brokers[0]


@pytest.fixture
def twin(brokers):
    return brokers[1]


async def test_what_is_published_is_read_in_order_by_who_is_there_and_by_who_comes_later(broker) -> None:
    opened = await opened_stream(broker, workspace_id="here", node_id="node")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        live = tasks.create_task(read(broker, opened))
        heard = await publish(broker, opened, [start(), data(2), data(3), end(4)])
    assert live.result() == [1, 2, 3, 4]
    assert await read(broker, opened) == [1, 2, 3, 4]
    assert heard[-1].ack.sequence == 4
    stream = await broker.get(opened.stream_id)
    assert (stream.state, stream.end.reason, stream.last_sequence) == (stream_pb2.STREAM_STATE_ENDED, "stop", 4)


async def test_an_event_says_where_it_comes_from_and_when(broker) -> None:
    opened = await opened_stream(broker, node_id="node")
    await publish(broker, opened, [data(1, "hello")])
    async with broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        batch = await anext(subscription)
    event = StreamEvent.FromString(batch.events[0].data)
    assert (event.stream_id, event.node_id, event.sequence) == (opened.stream_id, "node", 1)
    assert event.payload.data.content.text == "hello"
    assert event.timestamp.seconds > 1_600_000_000
    assert SubscribeResponse.FromString(batch.frame()).events.events == [event]
    assert SubscribeResponse.FromString(batch.events[0].frame).events.events == [event]


async def test_a_subscriber_that_lags_gets_several_events_at_once(broker) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [data(number) for number in range(1, 101)])
    async with broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        batch = await anext(subscription)
    assert [event.sequence for event in batch.events] == list(range(1, 101))
    response = SubscribeResponse.FromString(batch.frame())
    assert [event.sequence for event in response.events.events] == list(range(1, 101))


async def test_a_batch_is_bounded_in_bytes(broker) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [data(number, "x" * 40_000) for number in range(1, 25)])
    async with broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        sizes = [len((await anext(subscription)).frame()) for _ in range(4)]
    assert 40_000 < max(sizes) < BATCH_BYTES + 1000


@pytest.mark.parametrize("after", [0, 1, 7, 299, 300])
async def test_a_reader_goes_on_from_any_position(broker, twin, after) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [*(data(number) for number in range(1, 300)), end(300)])
    for replica in (broker, twin):
        assert await read(replica, opened, after=after) == list(range(after + 1, 301))
        assert await read(replica, opened, resume_token=str(after)) == list(range(after + 1, 301))


async def test_events_published_on_one_replica_reach_readers_on_the_other_live(broker, twin) -> None:
    opened = await opened_stream(broker)
    request = SubscribeRequest(stream_id=opened.stream_id)
    async with (
        asyncio.timeout(20),
        broker.publish(opening_of(opened)) as publication,
        twin.subscribe(request) as subscription,
    ):
        for number in range(1, 21):
            await publication.put([data(number)])
            assert await collect(subscription, until=number) == [number]
        await publication.put([end(21)])
        assert await collect(subscription) == [21]


async def test_a_producer_that_moves_between_replicas_leaves_no_seam(broker, twin) -> None:
    opened = await opened_stream(broker)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(read(replica, opened)) for replica in (broker, twin) for _ in range(3)]
        for turn in range(6):
            first = 1 + 10 * turn
            events = [data(number) for number in range(first, first + 10)]
            await publish((broker, twin)[turn % 2], opened, events, epoch=turn + 1)
        await publish(twin, opened, [end(61)], epoch=7)
    assert [reader.result() for reader in readers] == [list(range(1, 62))] * 6


async def test_a_repeated_event_is_acknowledged_and_dropped(broker, twin) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start(), data(2), data(3)], epoch=1)
    heard = await publish(twin, opened, [data(2), data(3)], epoch=1)
    assert heard[-1].ack.sequence == 3
    heard = await publish(twin, opened, [data(3), data(4), end(5)], epoch=1)
    assert heard[-1].ack.sequence == 5
    heard = await publish(broker, opened, [data(4), end(5)], epoch=1)
    assert heard[-1].ack.sequence == 5
    assert await read(broker, opened) == [1, 2, 3, 4, 5]


async def test_an_event_from_the_future_names_the_stream_and_the_position(broker) -> None:
    opened = await opened_stream(broker)
    with pytest.raises(OutOfRange) as raised:
        await publish(broker, opened, [start(), data(3)])
    assert raised.value.metadata == {"stream_id": opened.stream_id, "sequence": "3", "next_sequence": "2"}


async def test_a_producer_with_a_higher_epoch_shuts_out_the_one_before(broker, twin) -> None:
    opened = await opened_stream(broker)
    async with broker.publish(opening_of(opened, "old")) as old, twin.publish(opening_of(opened, "new")) as new:
        assert (old.opened.epoch, new.opened.epoch) == (1, 2)
        await old.put([data(1)])
        with pytest.raises(FailedPrecondition) as raised:
            await collect_responses(old)
        assert raised.value.metadata == {"stream_id": opened.stream_id, "sequence": "1", "epoch": "2"}
        await new.put([data(1), end(2)])
        new.finish()
        assert (await collect_responses(new))[-1].ack.sequence == 2
    with pytest.raises(FailedPrecondition):
        await publish(broker, opened, [data(1)], producer_id="old", epoch=1)
    assert await read(broker, opened) == [1, 2]


async def collect_responses(publication):
    return [response async for response in publication]


async def test_an_event_after_the_end_names_the_last_sequence(broker) -> None:
    opened = await opened_stream(broker)
    with pytest.raises(FailedPrecondition) as raised:
        await publish(broker, opened, [start(), end(2), data(3)])
    assert raised.value.metadata["last_sequence"] == "2"
    assert raised.value.metadata["sequence"] == "3"
    await publish(broker, opened, [start(), end(2)])
    with pytest.raises(FailedPrecondition) as raised:
        await publish(broker, opened, [data(3)], producer_id="another")
    assert raised.value.metadata["last_sequence"] == "2"


async def test_an_event_that_a_close_got_ahead_of_is_not_acknowledged(broker) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start()])
    await broker.close(CloseStreamRequest(stream_id=opened.stream_id))
    with pytest.raises(FailedPrecondition):
        await publish(broker, opened, [data(2)])


@pytest.mark.parametrize("event", [data(3), end(3)], ids=["data", "end"])
async def test_an_event_whose_place_a_close_took_is_not_taken_for_stored_when_its_producer_comes_back(
    broker, twin, event
) -> None:
    opened = await opened_stream(broker)
    async with broker.publish(opening_of(opened)) as lost:
        await lost.put([start(), data(2)])
        assert (await anext(lost)).ack.sequence == 2
    # The producer sent its third event and nobody took it.
    await twin.close(CloseStreamRequest(stream_id=opened.stream_id))
    async with twin.publish(opening_of(opened, epoch=lost.opened.epoch)) as publication:
        assert publication.opened.last_sequence == 2
        with pytest.raises(FailedPrecondition) as raised:
            await publication.put([event])
            await collect_responses(publication)
    assert raised.value.metadata["last_sequence"] == "3"


async def test_unknown_streams_and_wrong_tokens_are_refused(broker) -> None:
    opened = await opened_stream(broker)
    opened_wrong = type(opened)(stream_id=opened.stream_id, publish_token="guessed")
    with pytest.raises(PermissionDenied) as denied:
        await publish(broker, opened_wrong, [])
    assert denied.value.metadata["stream_id"] == opened.stream_id
    nobody = type(opened)(stream_id="nobody", publish_token="guessed")
    for attempt in (publish(broker, nobody, []), read(broker, nobody), broker.get("nobody")):
        with pytest.raises(NotFound) as missing:
            await attempt
        assert missing.value.metadata["stream_id"] == "nobody"


async def test_a_position_in_the_future_names_the_newest(broker) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start()])
    with pytest.raises(OutOfRange) as raised:
        await read(broker, opened, after=2)
    assert raised.value.metadata == {"stream_id": opened.stream_id, "sequence": "2", "newest": "1"}
    with pytest.raises(InvalidRequest):
        await read(broker, opened, resume_token="somewhere")


async def test_an_oversized_event_and_an_invalid_chunk_name_stream_position_and_limit(broker) -> None:
    opened = await opened_stream(broker)
    with pytest.raises(InvalidRequest) as raised:
        await publish(broker, opened, [start(), data(2, "x" * 3_000_000)])
    assert raised.value.metadata["sequence"] == "2"
    assert raised.value.metadata["limit_bytes"] == str(2 * 1024 * 1024)
    empty = data(1)
    empty.payload.data.ClearField("content")
    with pytest.raises(InvalidRequest) as raised:
        await publish(broker, opened, [empty])
    assert raised.value.metadata["stream_id"] == opened.stream_id


async def test_limits_beyond_those_of_the_server_are_refused_by_name(broker) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await opened_stream(broker, max_items=1_000_000, max_bytes=1 << 30)
    assert [field for field, _ in raised.value.violations] == ["limits.max_items", "limits.max_bytes"]


async def test_a_full_buffer_drops_the_oldest_and_tells_the_gap(broker) -> None:
    opened = await opened_stream(broker, overflow="drop_oldest", max_items=16)
    await publish(broker, opened, [*(data(number) for number in range(1, 40)), end(40)])
    assert await read(broker, opened) == [(1, 24), *range(25, 41)]
    with pytest.raises(OutOfRange) as raised:
        await read(broker, opened, after=3)
    assert raised.value.metadata["first_sequence"] == "25"
    assert await read(broker, opened, after=3, allow_gap=True) == [(4, 24), *range(25, 41)]
    assert await read(broker, opened, after=24) == list(range(25, 41))


async def test_a_full_buffer_blocks_the_producer_until_the_reader_has_read(broker) -> None:
    opened = await opened_stream(broker, overflow="block", max_items=16)
    async with asyncio.timeout(20), broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        async with broker.publish(opening_of(opened)) as publication:
            await publication.put([*(data(number) for number in range(1, 40)), end(40)])
            publication.finish()
            heard = [await anext(publication)]
            while not heard[-1].notice.blocked:
                heard.append(await anext(publication))
            assert await collect(subscription) == list(range(1, 41))
            heard += await collect_responses(publication)
        assert heard[-1].ack.sequence == 40


async def test_a_full_buffer_blocks_for_a_reader_on_another_replica_too(broker, twin) -> None:
    opened = await opened_stream(broker, overflow="block", max_items=16)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(twin, opened))
        await publish(broker, opened, [*(data(number) for number in range(1, 100)), end(100)])
    assert reading.result() == list(range(1, 101))


async def left_reader(broker, opened, publication):
    """Let a reader take four events and leave, and the producer publish until it is held; tell whether it is."""
    request = SubscribeRequest(stream_id=opened.stream_id, subscriber_id="reader")
    async with broker.subscribe(request) as subscription:
        await publication.put([data(number) for number in range(1, 5)])
        assert await collect(subscription, until=4) == [1, 2, 3, 4]
    await publication.put([data(number) for number in range(5, 31)])
    publication.finish()
    async for response in publication:
        if response.notice.blocked:
            return True
    return False


async def test_a_reader_that_comes_back_in_time_finds_everything_on_any_replica(broker, twin) -> None:
    opened = await opened_stream(broker, overflow="block", max_items=16)
    async with asyncio.timeout(20), broker.publish(opening_of(opened)) as publication:
        assert await left_reader(broker, opened, publication)
        assert await read(twin, opened, after=4, until=30, subscriber_id="reader") == list(range(5, 31))


async def test_a_producer_that_is_held_on_after_a_part_was_taken_hears_so_again(broker) -> None:
    opened = await opened_stream(broker, overflow="block", max_items=16)
    async with (
        asyncio.timeout(20),
        broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as reader,
        broker.publish(opening_of(opened)) as publication,
    ):
        await publication.put([data(number) for number in range(1, 41)])
        first, then = await anext(publication), await anext(publication)
        assert (first.ack.sequence, then.notice.blocked) == (16, True)
        assert await collect(reader, until=16) == list(range(1, 17))
        more = asyncio.create_task(anext(reader))
        while not (heard := await anext(publication)).notice.blocked:
            assert 16 < heard.ack.sequence < 40
        assert (await more).events[0].sequence == 17


@pytest.mark.stack
async def test_a_reader_that_does_not_come_back_holds_the_producer_for_a_while_only(kept) -> None:
    async def held(broker):
        opened = await opened_stream(broker, overflow="block", max_items=16)
        async with broker.publish(opening_of(opened)) as publication:
            if not await left_reader(broker, opened, publication):
                return None
            assert (await collect_responses(publication))[-1].ack.sequence == 30
            return opened

    async with asyncio.timeout(60), broker_over(**kept, resume_seconds=2) as broker:
        while (opened := await held(broker)) is None:  # where the machine stalls the while may be over before
            pass
        assert await read(broker, opened, after=4, until=30, allow_gap=True) == [(5, 14), *range(15, 31)]


async def test_a_producer_that_came_back_elsewhere_is_heard_beside_the_connection_that_it_lost(broker, twin) -> None:
    opened = await opened_stream(broker)
    request = SubscribeRequest(stream_id=opened.stream_id)
    async with (
        asyncio.timeout(20),
        broker.publish(opening_of(opened)) as lost,
        broker.subscribe(request) as subscription,
    ):
        await lost.put([data(1)])
        assert await collect(subscription, until=1) == [1]
        await publish(twin, opened, [data(2), end(3)], epoch=lost.opened.epoch)
        assert await collect(subscription) == [2, 3]


async def test_a_full_buffer_drops_the_newest_and_everybody_gets_the_same_gap(broker, twin) -> None:
    opened = await opened_stream(broker, overflow="drop_newest", max_items=16)
    heard = await publish(broker, opened, [*(data(number) for number in range(1, 31)), end(31)])
    dropped = [response.notice.dropped for response in heard if response.notice.HasField("dropped")]
    assert [(gap.first_sequence, gap.last_sequence) for gap in dropped] == [(17, 30)]
    for replica in (broker, twin):
        assert await read(replica, opened) == [*range(1, 17), (17, 30), 31]


async def test_what_was_dropped_at_the_end_is_told_before_a_heartbeat(broker, twin) -> None:
    opened = await opened_stream(broker, overflow="drop_newest", max_items=16, heartbeat=0.1)
    await publish(broker, opened, [data(number) for number in range(1, 31)])
    async with asyncio.timeout(10):
        for replica in (broker, twin):
            assert await read(replica, opened, until="StreamHeartbeat") == [*range(1, 17), (17, 30), "StreamHeartbeat"]


async def test_a_laggard_is_disconnected_where_the_policy_says_so(broker) -> None:
    opened = await opened_stream(broker, overflow="disconnect", max_items=16)
    request = SubscribeRequest(stream_id=opened.stream_id)
    async with broker.publish(opening_of(opened)) as publication, broker.subscribe(request) as subscription:
        await publication.put([data(1)])
        assert await collect(subscription, until=1) == [1]
        await publication.put([data(number) for number in range(2, 600)])
        publication.finish()
        await collect_responses(publication)
        with pytest.raises(Overloaded) as raised:
            await collect(subscription)
    named = raised.value.metadata
    assert (named["stream_id"], named["sequence"]) == (opened.stream_id, "1")
    assert int(named["first_sequence"]) > 2


async def test_silence_is_told_with_the_last_sequence(broker) -> None:
    opened = await opened_stream(broker, heartbeat=0.1)
    await publish(broker, opened, [start()])
    async with asyncio.timeout(10), broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        await anext(subscription)
        assert await anext(subscription) == StreamHeartbeat(last_sequence=1)
        assert await anext(subscription) == StreamHeartbeat(last_sequence=1)


async def test_a_stream_that_outlives_its_time_ends_with_an_error_once(broker, twin, monkeypatch) -> None:
    has_begun = asyncio.Event()

    def overdue_of(store):
        overdue = store.overdue

        async def overdue_later(limit):
            return await overdue(limit) if has_begun.is_set() else []

        return overdue_later

    for replica in (broker, twin):
        monkeypatch.setattr(replica._store, "overdue", overdue_of(replica._store))
    opened = await opened_stream(broker, duration=0.05)
    await publish(broker, opened, [start()])
    has_begun.set()
    async with asyncio.timeout(10):
        assert await read(twin, opened) == [1, 2]
    stream = await broker.get(opened.stream_id)
    assert isinstance(MeshError.from_status(stream.end.error), StreamTimeout)
    assert (stream.state, stream.end.reason) == (stream_pb2.STREAM_STATE_FAILED, "timeout")


async def test_a_stream_that_cannot_be_ended_keeps_no_other_from_its_end(monkeypatch) -> None:
    monkeypatch.setattr("mediamesh.streams.broker._SWEEP_SECONDS", 0.01)
    async with asyncio.timeout(10), broker_over() as broker:
        append = broker._store.append
        stuck = await opened_stream(broker, duration=0.001)
        other = await opened_stream(broker, duration=0.002)

        async def append_elsewhere(asked):
            if asked.stream_id == stuck.stream_id:
                raise Unavailable("The store does not answer for this one.")
            return await append(asked)

        monkeypatch.setattr(broker._store, "append", append_elsewhere)
        assert await read(broker, other) == [1]
        assert (await broker.get(stuck.stream_id)).state == stream_pb2.STREAM_STATE_LIVE


async def test_a_producer_that_is_always_faster_does_not_keep_its_stream_from_being_closed(broker, monkeypatch) -> None:
    opened = await opened_stream(broker)
    load = broker._store.load
    numbers = itertools.count(1)
    async with asyncio.timeout(20), broker.publish(opening_of(opened)) as publication:

        async def late_load(stream_ids):
            found = await load(stream_ids)
            with suppress(FailedPrecondition):
                await publication.put([data(next(numbers))])
                await anext(publication)
            return found

        monkeypatch.setattr(broker._store, "load", late_load)
        stream = await broker.close(CloseStreamRequest(stream_id=opened.stream_id))
        assert stream.end.reason == "closed"
        with pytest.raises(FailedPrecondition):
            await collect_responses(publication)
    monkeypatch.undo()
    assert await read(broker, opened) == list(range(1, stream.last_sequence + 1))


async def test_a_stream_is_closed_once_and_late_readers_see_why(broker, twin) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start()])
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(read(replica, opened)) for replica in (broker, twin)]
        await broker.close(CloseStreamRequest(stream_id=opened.stream_id, reason="enough"))
    assert [reader.result() for reader in readers] == [[1, 2]] * 2
    again = await twin.close(CloseStreamRequest(stream_id=opened.stream_id, reason="too late"))
    assert (again.end.reason, again.last_sequence) == ("enough", 2)


async def test_those_who_watch_see_what_lives_what_comes_and_what_ends(broker, twin) -> None:
    workspace = new_id()
    before = await opened_stream(broker, workspace_id=workspace, execution_id="run")
    await opened_stream(broker, workspace_id=workspace, execution_id="another")
    request = WatchStreamsRequest(workspace_id=workspace, execution_id="run")
    async with asyncio.timeout(10), aclosing(twin.watch(request)) as frames:
        assert (await anext(frames)).stream_available.stream.stream_id == before.stream_id
        token = (await anext(frames)).resume_token
        after = await opened_stream(broker, workspace_id=workspace, execution_id="run")
        assert (await anext(frames)).stream_available.stream.stream_id == after.stream_id
        await publish(broker, after, [start(), end(2)])
        assert (await anext(frames)).stream_complete.stream.stream_id == after.stream_id
    request.resume_token = token
    async with asyncio.timeout(10), aclosing(broker.watch(request)) as frames:
        assert (await anext(frames)).stream_available.stream.stream_id == after.stream_id
        assert (await anext(frames)).stream_complete.stream.stream_id == after.stream_id


async def test_streams_are_listed_newest_first_in_pages(broker) -> None:
    workspace = new_id()
    ids = [(await opened_stream(broker, workspace_id=workspace)).stream_id for _ in range(5)]
    first = await broker.list(ListStreamsRequest(workspace_id=workspace, page_size=3))
    rest = await broker.list(ListStreamsRequest(workspace_id=workspace, page_token=first.next_page_token))
    assert [stream.stream_id for stream in [*first.streams, *rest.streams]] == sorted(ids, reverse=True)


async def test_a_fast_producer_is_held_to_its_rate(broker) -> None:
    opened = await opened_stream(broker, max_events_per_second=100)
    began = asyncio.get_running_loop().time()
    await publish(broker, opened, [data(number) for number in range(1, 76)])
    assert asyncio.get_running_loop().time() - began >= 0.45


async def test_who_leaves_is_sent_elsewhere_with_its_position(brokers) -> None:
    leaving, staying = brokers[0], brokers[1]
    opened = await opened_stream(leaving)
    async with asyncio.timeout(10), leaving.publish(opening_of(opened)) as publication:
        async with leaving.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
            await publication.put([start(), data(2)])
            assert await collect(subscription, until=2) == [1, 2]
            leaving.leave()
            (away,) = [delivery async for delivery in subscription]
        heard = await collect_responses(publication)
    assert away.resume_token == "2"
    assert [heard[-2].ack.sequence, heard[-1].go_away.resume_token] == [2, "2"]
    await publish(staying, opened, [data(2), end(3)], epoch=publication.opened.epoch)
    assert await read(staying, opened, resume_token=away.resume_token) == [3]


async def test_who_leaves_minds_no_event_after_one_that_it_did_not_take(brokers) -> None:
    leaving, staying = brokers[0], brokers[1]
    opened = await opened_stream(leaving)
    async with asyncio.timeout(10), leaving.publish(opening_of(opened)) as publication:
        await publication.put([start()])
        leaving.leave()
        # A producer that has not heard of it yet goes on as before.
        await publication.put([data(2)])
        await publication.put([data(3)])
        heard = await collect_responses(publication)
    assert heard[-1].go_away.resume_token == "1"
    await publish(staying, opened, [data(2), data(3), end(4)], epoch=publication.opened.epoch)
    assert await read(staying, opened) == [1, 2, 3, 4]


async def test_a_producer_that_comes_while_all_are_sent_elsewhere_is_sent_there_too(broker, monkeypatch) -> None:
    opened = await opened_stream(broker)
    take = broker._store.take

    async def late_take(*asked):
        taken = await take(*asked)
        broker.leave()
        return taken

    monkeypatch.setattr(broker._store, "take", late_take)
    async with asyncio.timeout(10), broker.publish(opening_of(opened)) as publication:
        heard = await collect_responses(publication)
    assert heard[-1].go_away.resume_token == "0"


async def test_a_reader_of_many_that_was_held_for_long_and_is_behind_reads_the_log(broker, monkeypatch) -> None:
    opened = await opened_stream(broker, overflow="drop_oldest", max_items=1000)
    request = SubscribeRequest(stream_id=opened.stream_id)
    request.heartbeat_interval.FromNanoseconds(1)  # so that it has been silent for longer at any time
    look = broker._hub.look

    async def breathing_look(*about):
        await asyncio.sleep(0)  # one that spins for ever shows in the timeout below
        await look(*about)

    monkeypatch.setattr(broker._hub, "look", breathing_look)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(10))
        slow, *_ = [await stack.enter_async_context(broker.subscribe(request)) for _ in range(33)]
        await publish(broker, opened, [*(data(number) for number in range(1, 400)), end(400)])
        assert slow._tail.is_crowded()
        assert slow._tail.floor > 0
        assert await collect(slow) == list(range(1, 401))


def lose(memory, opened, newest):
    """Let a store come back without its last events."""
    log = memory.logs[opened.stream_id]
    for sequence in [known for known in log.entries if known > newest]:
        log.size -= len(log.entries.pop(sequence))
    log.standing.newest = newest


async def test_a_reader_that_reads_the_log_is_told_no_gaps_where_the_store_lost_events() -> None:
    memory = Memory()
    async with asyncio.timeout(10), broker_over(memory) as broker:
        opened = await opened_stream(broker, overflow="drop_oldest", max_items=1000)
        request = SubscribeRequest(stream_id=opened.stream_id)
        async with broker.subscribe(request) as slow, broker.subscribe(request) as quick:
            await publish(broker, opened, [data(number) for number in range(1, 401)])
            assert await collect(quick, until=400) == list(range(1, 401))
            lose(memory, opened, 120)
            assert await collect(slow, until=120) == list(range(1, 121))
            for reader in (slow, quick):
                with pytest.raises(Unavailable, match="lost"):
                    await anext(reader)
            with pytest.raises(OutOfRange) as raised:
                await read(broker, opened, after=400)
            assert raised.value.metadata["newest"] == "120"
            request.after_sequence = 120
            async with broker.subscribe(request) as again:
                await publish(broker, opened, [data(121), end(122)])
                assert await collect(again) == [121, 122]


async def test_readers_are_sent_away_before_a_producer_takes_the_place_of_events_that_the_store_lost() -> None:
    memory = Memory()
    async with asyncio.timeout(10), broker_over(memory) as broker:
        opened = await opened_stream(broker)
        async with broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
            await publish(broker, opened, [data(number) for number in range(1, 11)])
            assert await collect(subscription, until=10) == list(range(1, 11))
            lose(memory, opened, 8)
            await publish(broker, opened, [data(9)])
            with pytest.raises(Unavailable, match="lost"):
                await anext(subscription)
        assert await read(broker, opened, after=8, until=9) == [9]


async def test_what_happens_is_counted(broker) -> None:
    opened = await opened_stream(broker, overflow="drop_newest", max_items=16)
    before = copy.deepcopy(vars(COUNTS))
    async with broker.subscribe(SubscribeRequest(stream_id=opened.stream_id)) as subscription:
        assert COUNTS.subscribers == before["subscribers"] + 1
        await publish(broker, opened, [*(data(number) for number in range(1, 20)), end(20)])
        await collect(subscription)
    assert COUNTS.subscribers == before["subscribers"]
    assert COUNTS.events_in == before["events_in"] + 20
    assert COUNTS.bytes_in > before["bytes_in"]
    assert COUNTS.events_out == before["events_out"] + 17
    assert COUNTS.dropped["drop_newest"] == before["dropped"]["drop_newest"] + 3
    assert COUNTS.gaps == before["gaps"] + 1


async def test_a_tail_is_let_go_with_its_last_subscriber(broker) -> None:
    opened = await opened_stream(broker)
    request = SubscribeRequest(stream_id=opened.stream_id)
    async with broker.subscribe(request), broker.subscribe(request):
        assert list(broker._hub.tails) == [opened.stream_id]
    assert opened.stream_id not in broker._hub.tails


async def test_only_so_many_streams_live_and_only_so_many_subscribe() -> None:
    async with broker_over(max_concurrent_streams=2, max_subscribers=1) as broker:
        opened = await broker.open(OpenStreamRequest(limits=limits()))
        await broker.open(OpenStreamRequest())
        with pytest.raises(Overloaded):
            await broker.open(OpenStreamRequest())
        await publish(broker, opened, [end(1)])
        await broker.open(OpenStreamRequest())
        request = SubscribeRequest(stream_id=opened.stream_id)
        async with broker.subscribe(request):
            with pytest.raises(Overloaded) as raised:
                await read(broker, opened)
        assert raised.value.retry_after == 1
