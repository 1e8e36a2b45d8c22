"""The network breaks: between clients and the door, and between the servers and their store."""

from __future__ import annotations

import asyncio

import pytest

from mediamesh.stack.ports import free_ports
from tests.chaos.cluster import cluster_up
from tests.chaos.load import loaded
from tests.chaos.proxy import proxied

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


async def test_connections_that_are_reset_are_not_noticed(cluster, history, verify) -> None:
    async with (
        proxied(cluster.ports["door"]) as proxy,
        loaded(history, proxy.address, streams=50, events=40, pause=0.1) as load,
    ):
        for share in (0.2, 0.4, 0.6, 0.8):
            await load.until(share)
            proxy.reset()
        assert proxy.connections >= 2
    assert len(history.of("completed")) == 100
    verify()


async def test_a_cut_of_seconds_is_waited_for(cluster, history, verify) -> None:
    async with (
        proxied(cluster.ports["door"]) as proxy,
        loaded(history, proxy.address, streams=50, events=40, pause=0.1) as load,
    ):
        await load.until(0.4)
        proxy.cut()
        await asyncio.sleep(3)  # how long it lasts is what is tested
        proxy.heal()
    assert len(history.of("completed")) == 100
    verify()


@pytest.mark.parametrize("ends_in", ["healing", "a reset"])
async def test_a_network_that_swallows_everything_is_outlived(cluster, history, verify, ends_in) -> None:
    async with (
        proxied(cluster.ports["door"]) as proxy,
        loaded(history, proxy.address, streams=50, events=40, pause=0.1) as load,
    ):
        await load.until(0.4)
        proxy.swallow()
        await asyncio.sleep(4)
        if ends_in == "a reset":
            proxy.reset()
        proxy.heal()
    assert len(history.of("completed")) == 100
    verify()


@pytest.mark.parametrize("how", ["cut", "swallow"])
async def test_servers_that_lose_their_store_find_it_again(tmp_path, history, verify, how) -> None:
    (port,) = free_ports(1)
    async with (
        proxied(port) as proxy,
        cluster_up(tmp_path, fsync="always", valkey_behind=proxy.port, valkey_port=port) as cluster,
        loaded(history, cluster.door, streams=30, events=40, pause=0.1) as load,
    ):
        await load.until(0.3)
        proxy.reset()
        await load.until(0.6)
        getattr(proxy, how)()
        await asyncio.sleep(4)
        proxy.heal()
    assert len(history.of("completed")) == 60
    verify()
