"""Everything at once, at random: servers, store, door and network are killed, frozen, sent away and cut."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.cluster import Cluster, Part, cluster_up
from tests.chaos.load import ALL, Load, loaded
from tests.chaos.proxy import Proxy, proxied

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# MEDIAMESH_CHAOS_SEED=… repeats what a failure printed; without it every run is another.
SEED = int(os.environ.get("MEDIAMESH_CHAOS_SEED") or random.randrange(1_000_000))
STREAMS, EVENTS, PAUSE_SECONDS = 30, 80, 0.3


class Nemesis:
    """Breaks one thing after the other, and mends it."""

    def __init__(self, cluster: Cluster, proxy: Proxy, chance: random.Random) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._chance = chance
        self.deeds: list[str] = []

    async def work(self, load: Load) -> None:
        """Do harm until nearly all is delivered."""
        ends = asyncio.create_task(load.until(0.9))
        while not ends.done():
            await self._harm()
            await asyncio.wait([ends], timeout=self._chance.uniform(0, 1.5))

    async def _harm(self) -> None:
        servers = [*self._cluster.replicas, *self._cluster.edges]
        part = self._chance.choice([*servers, *servers, self._cluster.valkey, self._cluster.envoy])
        deeds: list[Callable[[], Awaitable[None]]] = [
            lambda: self._kill(part),
            lambda: self._send_away(part),
            lambda: part.freeze(self._chance.uniform(0.5, 3)),
            self._cut,
        ]
        number = self._chance.randrange(len(deeds))
        self.deeds.append(f"{('kill', 'stop', 'freeze', 'cut')[number]} {part.program.name if number < 3 else ''}")
        await deeds[number]()

    async def _kill(self, part: Part) -> None:
        await part.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await part.start()

    async def _send_away(self, part: Part) -> None:
        assert await part.stop() == 0, f"{part.program.name} did not end well"
        await part.start()

    async def _cut(self) -> None:
        match self._chance.randrange(3):
            case 0:
                self._proxy.reset()
            case 1:
                self._proxy.cut()
            case _:
                self._proxy.swallow()
        await asyncio.sleep(self._chance.uniform(0, 2))
        self._proxy.heal()


async def test_whatever_breaks_nothing_is_lost(tmp_path, history, verify, capsys) -> None:
    with capsys.disabled():
        print(f"\nMEDIAMESH_CHAOS_SEED={SEED}")  # noqa: T201
    async with (
        cluster_up(tmp_path, fsync="always", edges=2) as cluster,
        proxied(cluster.ports["door"]) as proxy,
        loaded(history, proxy.address, streams=STREAMS, events=EVENTS, pause=PAUSE_SECONDS, edges=ALL) as load,
    ):
        nemesis = Nemesis(cluster, proxy, random.Random(SEED))
        await load.until(0.05)
        await nemesis.work(load)
    with capsys.disabled():
        print(", ".join(nemesis.deeds))  # noqa: T201
    assert len(history.of("completed")) == len(ALL) * STREAMS
    verify()
