"""Readers that stop, and readers that are slow: nobody else suffers, and what they cost is bounded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamLimits
from mediamesh.client import Mesh
from mediamesh.client.streams import Publisher
from mediamesh.wire.errors import Overloaded
from tests.chaos.cluster import cluster_up
from tests.chaos.producers import produce
from tests.chaos.proxy import proxied
from tests.chaos.readers import bare, bare_channel, place_of, read
from tests.chaos.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

KIB, MIB = 1024, 1024 * 1024
CHUNK = 16 * KIB
# More than all that lies between a producer and a reader that stopped: buffers of gRPC, Envoy and the kernel.
EVENTS = 1500
SMALL_ITEMS = 64
HELD_SECONDS = 12.0


class Stop:
    """A reader that reads a little, then stops until it is told to go on."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._may_go_on = asyncio.Event()
        self.has_stopped = asyncio.Event()

    async def __call__(self, item) -> None:
        if isinstance(item, StreamEvent) and item.sequence >= self._after:
            self.has_stopped.set()
            await self._may_go_on.wait()

    def go_on(self) -> None:
        self._may_go_on.set()


@asynccontextmanager
async def a_stopped_reader(history, cluster, opened):
    """Have a reader that stopped, over a connection of its own with a small window; it goes on after the block."""
    stop = Stop(3)
    async with bare_channel(cluster.door) as channel, asyncio.TaskGroup() as group:
        source = bare(channel, opened.stream_id, "stopped")
        task = group.create_task(read(history, opened.stream_id, source, client="stopped", edge="bare", watch=stop))
        yield stop, task
        stop.go_on()


async def test_block_holds_the_producer_until_the_reader_goes_on(cluster, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_BLOCK, max_items=SMALL_ITEMS, max_bytes=MIB)
    publishers: list[Publisher] = []
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open(limits=limits)
        async with a_stopped_reader(history, cluster, opened) as (stop, _), asyncio.TaskGroup() as group:
            producing = group.create_task(
                produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK, watch=publishers.append)
            )
            await stop.has_stopped.wait()
            await until(lambda: bool(publishers) and publishers[0].is_blocked)
            # Longer than the place of a reader that left is kept: this one has not left.
            held_at = publishers[0].acknowledged
            await asyncio.sleep(HELD_SECONDS)
            assert not producing.done()
            assert publishers[0].acknowledged <= held_at + SMALL_ITEMS
            stop.go_on()
    assert not history.of("gap")
    assert len(history.of("completed")) == 1
    verify()


async def test_block_holds_through_the_death_of_servers_and_store(tmp_path, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_BLOCK, max_items=SMALL_ITEMS, max_bytes=MIB)
    publishers: list[Publisher] = []
    async with cluster_up(tmp_path, fsync="always", resume_seconds=60) as cluster, Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open(limits=limits)
        async with a_stopped_reader(history, cluster, opened) as (stop, _), asyncio.TaskGroup() as group:
            group.create_task(
                produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK, watch=publishers.append)
            )
            await stop.has_stopped.wait()
            await until(lambda: bool(publishers) and publishers[0].is_blocked)
            for part in (*cluster.replicas, cluster.valkey):
                await part.restart()
            stop.go_on()
    assert len(history.of("completed")) == 1
    verify()


async def test_drop_oldest_lets_the_producer_go_on_and_tells_the_reader(cluster, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_items=SMALL_ITEMS, max_bytes=MIB)
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open(limits=limits)
        async with a_stopped_reader(history, cluster, opened) as (stop, _):
            await asyncio.gather(
                produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK), stop.has_stopped.wait()
            )
    assert history.of("gap")
    assert len(history.of("completed")) == 1
    verify(gaps=True)


async def test_drop_newest_lets_the_producer_go_on_and_tells_everybody(cluster, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_NEWEST, max_items=SMALL_ITEMS, max_bytes=MIB)
    publishers: list[Publisher] = []
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open(limits=limits)
        async with a_stopped_reader(history, cluster, opened) as (stop, _):
            await asyncio.gather(
                produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK, watch=publishers.append),
                stop.has_stopped.wait(),
            )
    assert publishers[0].dropped > 0
    lost = sum(one.last - one.sequence + 1 for one in history.of("gap"))
    assert lost == publishers[0].dropped
    verify(gaps=True)


async def test_disconnect_ends_the_reader_and_it_may_come_back(cluster, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DISCONNECT, max_items=SMALL_ITEMS, max_bytes=MIB)
    async with Mesh(cluster.door) as mesh, bare_channel(cluster.door) as channel:
        opened = await mesh.streams.open(limits=limits)
        stop = Stop(3)

        position = 0

        async def watch(item) -> None:
            nonlocal position
            position = place_of(item)
            await stop(item)

        async def be_disconnected() -> Overloaded:
            history.add("subscribed", opened.stream_id, "stopped", edge="bare")
            with pytest.raises(Overloaded) as raised:
                async for item in bare(channel, opened.stream_id, "stopped")(0):
                    history.delivered("stopped", "bare", opened.stream_id, item)
                    await watch(item)
            history.add("left", opened.stream_id, "stopped", edge="bare")
            return raised.value

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(be_disconnected())
            producing = group.create_task(produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK))
            await stop.has_stopped.wait()
            await until(producing.done, 90)
            stop.go_on()
        error = reading.result()
        assert error.metadata["stream_id"] == opened.stream_id
        assert int(error.metadata["sequence"]) >= position
        await read(
            history,
            opened.stream_id,
            lambda after: mesh.streams.subscribe(opened.stream_id, after_sequence=after, allow_gap=True),
            client="stopped",
            after=position,
        )
    assert history.of("gap")
    verify(gaps=True)


async def test_others_go_on_beside_a_reader_that_stopped(cluster, history, verify) -> None:
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_items=2 * EVENTS, max_bytes=64 * MIB)
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open(limits=limits)
        async with a_stopped_reader(history, cluster, opened) as (stop, task):
            await asyncio.gather(
                produce(history, mesh.streams, opened, events=EVENTS, size=CHUNK),
                read(
                    history,
                    opened.stream_id,
                    lambda after: mesh.streams.subscribe(opened.stream_id, after_sequence=after),
                    client="quick",
                ),
                stop.has_stopped.wait(),
            )
            assert not task.done()
    assert not history.of("gap")
    verify()


async def test_a_reader_at_10_kilobytes_a_second_costs_bounded_memory(tmp_path, history, verify, capsys) -> None:
    """What 20 such readers add to the servers and to the door, while 40 MiB pass; printed for each of them."""
    slow_readers, megabytes = 20, 40
    limits = StreamLimits(overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_items=10_000, max_bytes=4 * MIB)

    async def publish(mesh: Mesh, *clients: str) -> str:
        """Publish all of it beside a quick reader and the slow ones; return the stream."""
        opened = await mesh.streams.open(limits=limits)
        stream_id = opened.stream_id
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(linger(stream_id, client))
            await asyncio.gather(
                produce(history, mesh.streams, opened, events=megabytes * MIB // CHUNK, size=CHUNK),
                read(
                    history,
                    stream_id,
                    lambda after: mesh.streams.subscribe(stream_id, after_sequence=after),
                    client="quick",
                ),
            )
            sizes.append([part.memory for part in (*cluster.replicas, cluster.envoy)])
            done.set()
        return stream_id

    async def linger(stream_id: str, client: str) -> None:
        """Read slowly until the others are done, and then no more."""
        source = bare(channels[client], stream_id, client)(0)
        history.add("subscribed", stream_id, client)

        async def follow() -> None:
            async for item in source:
                history.delivered(client, "bare", stream_id, item)

        task = asyncio.create_task(follow())
        await done.wait()
        task.cancel()
        await asyncio.wait([task])
        await source.aclose()
        history.add("left", stream_id, client)

    names = [f"slow-{number}" for number in range(slow_readers)]
    sizes: list[list[int]] = []
    async with (
        cluster_up(tmp_path) as cluster,
        proxied(cluster.ports["door"], bytes_per_second=10_000) as proxy,
        Mesh(cluster.door) as mesh,
    ):
        done = asyncio.Event()
        channels = {name: bare_channel(proxy.address) for name in names}
        try:
            for _ in range(2):
                await publish(mesh)
            done.clear()
            await publish(mesh, *names)
        finally:
            for channel in channels.values():
                await channel.close()
    servers = [sum(size[:-1]) for size in sizes]
    doors = [size[-1] for size in sizes]
    server, door = ((size[-1] - size[-2]) / slow_readers / KIB for size in (servers, doors))
    with capsys.disabled():
        print(f"\na reader at 10 kB/s holds {server:.0f} KiB in the servers and {door:.0f} KiB in Envoy")  # noqa: T201
    assert server + door < 2 * KIB
    assert not history.of("failed")
    verify(gaps=True)
