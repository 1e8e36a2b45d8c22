"""Servers and the store are killed, or sent away, while streams run."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.cluster import cluster_up
from tests.chaos.load import loaded

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


async def test_a_rolling_restart_loses_nothing_and_nobody_sees_an_error(cluster, history, verify) -> None:
    async with loaded(history, cluster.door, streams=100, events=50, pause=0.2) as load:
        for number, replica in enumerate(cluster.replicas):
            await load.until(0.2 + 0.3 * number)
            assert await replica.stop() == 0
            await replica.start()
    assert not history.of("failed")
    assert len(history.of("completed")) == 200
    verify()
