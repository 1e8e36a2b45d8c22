"""Valkey, replicas of the streams server and Envoy before them, as processes of their own that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving, http_request, http_status
from mediamesh.stack.process import Process, running
from mediamesh.stack.programs import Program, valkey
from mediamesh.stack.settings import UpSettings

__all__ = ["Cluster", "Part", "cluster_up"]

REPLICAS = 2


class Part:
    """A program that can be killed and started again."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.log = folder / f"{program.name}.log"
        self._process: Process | None = None
        self._stack = AsyncExitStack()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, f"{self.program.name} was never started"
        return self._process.pid

    @property
    def memory(self) -> int:
        """Bytes of memory that it has in use."""
        return psutil.Process(self.pid).memory_info().rss

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = await self._stack.enter_async_context(running(self.program, self.log))

    async def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        await self._gone()

    async def stop(self) -> int:
        """Send SIGTERM, wait and return its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return await self._gone()

    async def _gone(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        await self._stack.aclose()
        return code

    async def freeze(self, seconds: float) -> None:
        """Stop it for a while, as a machine does that hangs; it goes on as if nothing had been."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.pid, signal.SIGCONT)

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.kill()
        await self.start()

    async def close(self) -> None:
        """Stop it, if it runs."""
        await self._stack.aclose()


class Cluster:
    """What the scenarios break.

    Attributes:
        valkey: The store.
        replicas: The streams servers.
        edges: The servers for WebSockets.
        envoy: The door.
        door: ``host:port`` of the door.
        ports: Port of each part, by name.
    """

    def __init__(
        self,
        valkey_part: Part,
        replicas: Sequence[Part],
        edges: Sequence[Part],
        envoy_part: Part,
        ports: Mapping[str, int],
    ) -> None:
        self.valkey = valkey_part
        self.replicas = replicas
        self.edges = edges
        self.envoy = envoy_part
        self.ports = ports
        self.door = f"127.0.0.1:{ports['door']}"

    @property
    def parts(self) -> list[Part]:
        """All parts, in the order in which they start."""
        return [self.valkey, *self.replicas, *self.edges, self.envoy]

    async def is_whole(self) -> bool:
        """Tell whether the door takes every streams server for well."""
        admin = f"http://127.0.0.1:{self.ports['admin']}"
        _, text = await http_request("GET", f"{admin}/stats?filter=^cluster.streams.membership_healthy$")
        return f"membership_healthy: {len(self.replicas)}" in text


@asynccontextmanager
async def cluster_up(
    folder: Path,
    *,
    fsync: str = "everysec",
    valkey_before: Sequence[str] = (),
    valkey_port: int | None = None,
    valkey_behind: int | None = None,
    edges: int = 0,
    **settings: object,
) -> AsyncGenerator[Cluster]:
    """Run everything for as long as the block lasts.

    Args:
        folder: Where files and logs go.
        fsync: When Valkey's file reaches the disk.
        valkey_before: What starts Valkey, in place of nothing.
        valkey_port: Where Valkey listens; any free port when None.
        valkey_behind: Port at which the servers reach Valkey, when something is between.
        edges: How many servers for WebSockets.
        settings: Settings of the streams servers.
    """
    names = ["valkey", "door", "admin", "inside"]
    names += [f"streams-{number}" for number in range(REPLICAS)]
    names += [f"edge-{number}" for number in range(edges)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    if valkey_port is not None:
        ports["valkey"] = valkey_port
    settings = {
        "valkey_url": f"redis://127.0.0.1:{valkey_behind or ports['valkey']}/0",
        "public_url": f"ws://127.0.0.1:{ports['door']}",
        **settings,
    }
    store = valkey(port=ports["valkey"], data=folder, fsync=fsync)
    cluster = Cluster(
        Part(replace(store, argv=[*valkey_before, *store.argv]), folder),
        [Part(_streams(name, ports[name], settings), folder) for name in names if name.startswith("streams-")],
        [Part(_edge(name, ports[name], ports["inside"]), folder) for name in names if name.startswith("edge-")],
        Part(envoy(_door(folder, ports)), folder),
        ports,
    )
    async with AsyncExitStack() as stack:
        for part in cluster.parts:
            stack.push_async_callback(part.close)
        await cluster.valkey.start()
        async with asyncio.TaskGroup() as group:
            for part in cluster.parts[1:]:
                group.create_task(part.start())
        yield cluster


def _streams(name: str, port: int, settings: Mapping[str, object]) -> Program:
    return Program(
        name=name,
        argv=[sys.executable, "-m", "mediamesh.streams"],
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
        env=_environment("STREAMS", {"host": "127.0.0.1", "port": port, **settings}),
        ready_seconds=60,
        stop_seconds=20,
    )


def _edge(name: str, port: int, inside: int) -> Program:
    settings = {"host": "127.0.0.1", "port": port, "streams_address": f"127.0.0.1:{inside}"}
    return Program(
        name=name,
        argv=[sys.executable, "-m", "mediamesh.edge"],
        probe=partial(http_status, f"http://127.0.0.1:{port}/healthz"),
        env=_environment("EDGE", settings),
        ready_seconds=60,
        stop_seconds=20,
    )


def _environment(section: str, settings: Mapping[str, object]) -> dict[str, str]:
    return {f"MEDIAMESH_{section}_{key.upper()}": str(value) for key, value in settings.items()}


def _door(folder: Path, ports: Mapping[str, int]) -> Door:
    def of(kind: str) -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for name, port in ports.items() if name.startswith(f"{kind}-")]

    return Door(
        host="127.0.0.1",
        port=ports["door"],
        admin_port=ports["admin"],
        servers={"streams": of("streams")},
        edge=of("edge"),
        inside_port=ports["inside"],
        template=UpSettings().envoy_template,
        folder=folder / "envoy",
        access_log=folder / "access.jsonl",
        web=folder / "no-web",
    )
