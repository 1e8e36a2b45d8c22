"""The whole mesh, as ``mediamesh up`` runs it, with parts of it killed."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from mediamesh.cli.demo import mesh_up
from mediamesh.stack.ports import is_free
from mediamesh.stack.probes import NotReady, http_status

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture
def own_mesh(tmp_path):
    """Return a mesh that this test may break."""
    with mesh_up(tmp_path, MEDIAMESH_UP_MODELS="[]") as running_mesh:
        yield running_mesh


@pytest.fixture(scope="module")
def shared_mesh(tmp_path_factory):
    """Return a mesh of which tests break what comes back."""
    with mesh_up(tmp_path_factory.mktemp("mesh"), MEDIAMESH_UP_MODELS="[]") as running_mesh:
        yield running_mesh


def parts(mesh) -> list[psutil.Process]:
    return psutil.Process(mesh.pid).children(recursive=True)


def starts(mesh, name: str) -> list[int]:
    """Return the processes that a part has had, the newest last."""
    said = re.findall(rf" {name} is ready after \S+ s, pid (\d+)", (mesh.data / "up.log").read_text())
    return [int(pid) for pid in said]


async def until(holds) -> None:
    """Wait until a function returns true, asked again and again; it may be a coroutine function."""
    async with asyncio.timeout(60):
        while True:
            found = holds()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("name", ["valkey", "seaweedfs", "orchestrator", "streams", "edge", "envoy"])
async def test_a_part_that_is_killed_comes_back(shared_mesh, name) -> None:
    async def is_well() -> bool:
        try:
            await http_status(f"http://{shared_mesh.door}/healthz")
        except (OSError, NotReady):
            return False
        return True

    before = starts(shared_mesh, name)
    psutil.Process(before[-1]).kill()
    await until(lambda: len(starts(shared_mesh, name)) > len(before))
    await until(is_well)


def test_nothing_of_the_mesh_survives_its_supervisor(own_mesh) -> None:
    before = parts(own_mesh)
    assert len(before) == 9
    psutil.Process(own_mesh.pid).kill()
    assert not left_of(before)
    assert is_free(int(own_mesh.door.split(":")[1]))


def left_of(processes) -> list[psutil.Process]:
    """Wait until processes have ended, be it that nobody has reaped them; return those that have not."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    left = []
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            if one.status() != psutil.STATUS_ZOMBIE:
                left.append(one)
    return left


HOLDER = """
import signal, sys
from pathlib import Path
from mediamesh.cli.demo import mesh_up

with mesh_up(Path(sys.argv[1]), MEDIAMESH_UP_MODELS="[]") as mesh:
    print("up", flush=True)
    signal.pause()
"""


def test_nothing_of_the_mesh_survives_who_started_it(tmp_path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        before = psutil.Process(holder.pid).children(recursive=True)
        assert len(before) == 10
        holder.kill()
    left = left_of(before)
    for one in left:
        one.kill()
    assert not left


def test_the_mesh_closes_the_door_first_and_stops(own_mesh) -> None:
    up = psutil.Process(own_mesh.pid)
    up.send_signal(signal.SIGINT)
    up.wait(30)
    stopped = [
        line.split()[2] for line in (own_mesh.data / "up.log").read_text().splitlines() if line.endswith("has stopped")
    ]
    servers = ["edge", "orchestrator", "streams", "agents", "inference", "media"]
    assert stopped == ["envoy", *servers, "seaweedfs", "valkey"]
