"""Servers and the store are killed, or sent away, while streams run."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.client import Mesh
from tests.chaos.cluster import cluster_up
from tests.chaos.history import History
from tests.chaos.load import ALL, loaded
from tests.chaos.producers import produce
from tests.chaos.readers import read
from tests.chaos.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


async def test_200_streams_survive_the_death_of_each_server(cluster, history, verify) -> None:
    first, second = cluster.replicas
    async with loaded(history, cluster.door, streams=200, events=30, pause=0.2) as load:
        await load.until(0.25)
        await first.kill()
        await load.until(0.5)
        await first.start()
        await load.until(0.7)
        await second.restart()
    assert len(history.of("completed")) == 400
    verify()


async def test_streams_survive_the_death_of_the_store(tmp_path, history, verify) -> None:
    async with (
        cluster_up(tmp_path, fsync="always") as cluster,
        loaded(history, cluster.door, streams=50, events=40, pause=0.1) as load,
    ):
        for share in (0.2, 0.5, 0.8):
            await load.until(share)
            await cluster.valkey.restart()
    assert len(history.of("completed")) == 100
    verify()


async def test_a_store_that_is_gone_for_seconds_is_waited_for(tmp_path, history, verify) -> None:
    async with (
        cluster_up(tmp_path, fsync="always") as cluster,
        loaded(history, cluster.door, streams=20, events=40, pause=0.1) as load,
    ):
        await load.until(0.3)
        await cluster.valkey.kill()
        await asyncio.sleep(4)  # how long it is gone is what is tested
        await cluster.valkey.start()
    assert len(history.of("completed")) == 40
    verify()


async def test_everything_dies_at_once_and_nothing_is_lost(tmp_path, history, verify) -> None:
    async with (
        cluster_up(tmp_path, fsync="always") as cluster,
        loaded(history, cluster.door, streams=50, events=40, pause=0.1) as load,
    ):
        await load.until(0.4)
        await asyncio.gather(*(part.kill() for part in cluster.parts))
        for part in cluster.parts:
            await part.start()
    assert len(history.of("completed")) == 100
    verify()


async def test_a_rolling_restart_loses_nothing_and_nobody_sees_an_error(tmp_path, history, verify) -> None:
    """Neither streams that run, over any edge, nor those who open streams, publish to them, read and list them."""
    async with (
        cluster_up(tmp_path, edges=2) as cluster,
        loaded(history, cluster.door, streams=60, events=60, pause=0.3, edges=ALL) as load,
        Mesh(cluster.door) as mesh,
        asyncio.TaskGroup() as group,
    ):
        await load.until(0.1)
        visitors = [group.create_task(visit(mesh, history, f"visitor {number}")) for number in range(5)]
        for number, part in enumerate([*cluster.replicas, *cluster.edges]):
            await load.until(0.15 + 0.15 * number)
            assert await part.stop() == 0
            await part.start()
        await load.until(0.8)
        for visitor in visitors:
            visitor.cancel()
    visits = {one.stream_id for one in history if one.client.startswith("visitor") and one.kind == "completed"}
    assert len(visits) >= 5  # of each at least one, on a slow machine too
    assert not history.of("failed")
    assert len([one for one in history.of("completed") if one.edge != "visit"]) == 60 * len(ALL)
    verify()


async def test_calls_that_reach_a_server_as_it_stops_are_made_at_another(tmp_path) -> None:
    """gRPC cancels what comes between its notice to go and the reader of that notice."""
    async with cluster_up(tmp_path) as cluster, Mesh(cluster.door) as mesh, asyncio.TaskGroup() as group:
        made: set[int] = set()

        async def call(number: int) -> None:
            while True:
                await mesh.streams.list(page_size=1)
                made.add(number)

        callers = [group.create_task(call(number)) for number in range(30)]
        for part in (*cluster.replicas, *cluster.replicas):
            await until(cluster.is_whole)
            made.clear()
            await until(lambda: len(made) == 30)
            assert await part.stop() == 0
            await part.start()
        for caller in callers:
            caller.cancel()


async def visit(mesh: Mesh, history: History, client: str) -> None:
    """Open streams, fill them and read them again, one after the other, until cancelled."""
    while True:
        visited = await one_visit(mesh, client)
        # A visit that is cancelled in the middle has nothing to say.
        history.records.extend(visited.records)


async def one_visit(mesh: Mesh, client: str) -> History:
    visited = History()
    opened = await mesh.streams.open()
    stream_id = opened.stream_id
    await produce(visited, mesh.streams, opened, events=3, client=client)
    await read(
        visited,
        stream_id,
        lambda after: mesh.streams.subscribe(stream_id, after_sequence=after),
        client=client,
        edge="visit",
    )
    assert (await mesh.streams.get(stream_id)).last_sequence == 5
    await mesh.streams.list(page_size=5)
    return visited
