"""The whole mesh, as ``mediamesh up`` runs it, with parts of it killed."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import pytest

from mediamesh.cli.demo import mesh_up
from mediamesh.stack.ports import is_free
from mediamesh.stack.probes import http_status

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture
def own_mesh(tmp_path):
    """Return a mesh that this test may break."""
    with mesh_up(tmp_path) as running_mesh:
        yield running_mesh


def parts(mesh) -> list[psutil.Process]:
    return psutil.Process(mesh.pid).children(recursive=True)


def part(mesh, word: str) -> psutil.Process:
    (found,) = [one for one in parts(mesh) if any(word in argument for argument in one.cmdline())]
    return found


async def healthy(mesh) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await http_status(f"http://{mesh.door}/healthz")
            except Exception:  # noqa: BLE001 - not yet
                await asyncio.sleep(0.1)


async def test_every_part_that_is_killed_comes_back(own_mesh) -> None:
    for word in ("valkey-server", "weed", "mediamesh.orchestrator", "_bin/envoy"):
        victim = part(own_mesh, word)
        victim.kill()
        async with asyncio.timeout(60):
            while not any(word in " ".join(one.cmdline()) and one.pid != victim.pid for one in running(own_mesh)):
                await asyncio.sleep(0.1)
        await healthy(own_mesh)


def running(mesh) -> list[psutil.Process]:
    return [one for one in parts(mesh) if one.status() != psutil.STATUS_ZOMBIE]


def test_nothing_of_the_mesh_survives_its_supervisor(own_mesh) -> None:
    before = parts(own_mesh)
    assert len(before) == 7
    psutil.Process(own_mesh.pid).kill()
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert is_free(int(own_mesh.door.split(":")[1]))


def test_the_mesh_closes_the_door_first_and_stops_within_seconds(own_mesh) -> None:
    up = psutil.Process(own_mesh.pid)
    begin = time.monotonic()
    up.send_signal(signal.SIGINT)
    up.wait(30)
    stopped = [
        line.split()[2] for line in (own_mesh.data / "up.log").read_text().splitlines() if line.endswith("has stopped")
    ]
    assert stopped == ["envoy", "orchestrator", "agents", "inference", "media", "seaweedfs", "valkey"]
    assert time.monotonic() - begin < 20
