"""Valkey refuses to write: producers are told so and go on when it can again, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import resource
import sys

import psutil
import pytest
import redis.asyncio as redis

from mediamesh.client import Mesh
from mediamesh.wire.errors import Overloaded, Unavailable
from tests.chaos.cluster import Cluster, cluster_up
from tests.chaos.load import loaded

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

# Python ignores the signal of a file that is too large, and what it executes inherits that: writes fail instead.
_FAILING_WRITES = (sys.executable, "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])")
REFUSED_SECONDS = 3.0


class Memory:
    """Makes Valkey run out of memory."""

    async def refuse(self, cluster: Cluster) -> None:
        await self._limit(cluster, "1mb")

    async def heal(self, cluster: Cluster) -> None:
        await self._limit(cluster, "0")

    async def _limit(self, cluster: Cluster, most: str) -> None:
        async with redis.Redis(port=cluster.ports["valkey"]) as client:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", most)


class Disk:
    """Makes Valkey run out of disk: its files may not grow."""

    async def refuse(self, cluster: Cluster) -> None:
        self._limit(cluster, 1)

    async def heal(self, cluster: Cluster) -> None:
        self._limit(cluster, resource.RLIM_INFINITY)

    def _limit(self, cluster: Cluster, size: int) -> None:
        process = psutil.Process(cluster.valkey.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("want", [Memory(), Disk()], ids=["memory", "disk"])
async def test_a_store_that_refuses_is_borne_and_named(tmp_path, history, verify, want) -> None:
    async with (
        cluster_up(tmp_path, valkey_before=_FAILING_WRITES) as cluster,
        loaded(history, cluster.door, streams=20, events=60, pause=0.1) as load,
        Mesh(cluster.door) as mesh,
    ):
        await load.until(0.3)
        await want.refuse(cluster)
        await asyncio.sleep(REFUSED_SECONDS)
        with pytest.raises((Overloaded, Unavailable)) as raised:
            await mesh.streams.open()
        assert raised.value.text
        assert "server failed" not in raised.value.text
        await want.heal(cluster)
        await load.until(0.8)
        await cluster.valkey.restart()
    assert len(history.of("completed")) == 40
    verify()
