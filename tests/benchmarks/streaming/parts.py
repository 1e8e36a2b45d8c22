"""What the benchmark of streams runs: brokers, relays, doors in front of each, and Valkey."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mediamesh.kit.process import SERVERS
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving
from mediamesh.stack.process import running
from mediamesh.stack.programs import Program, valkey
from mediamesh.stack.settings import UpSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["Carrier", "broker", "door", "plain_valkey", "relay"]

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Something that carries streams.

    Attributes:
        wire: How it is spoken to, see `wires.WIRES`.
        target: Where, ``host:port``.
        processes: Ids of the processes that carry, by name.
    """

    wire: str
    target: str
    processes: Mapping[str, int] = field(default_factory=dict)


@asynccontextmanager
async def broker(folder: Path, tree: Path = ROOT, **environment: str) -> AsyncGenerator[Carrier]:
    """Run the streams server of a source tree, and a Valkey of its own."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs in this loop
    port, valkey_port = free_ports(2)
    roots = [tree / "servers", tree / "clients" / "python", tree / "generated" / "python"]
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, roots)),
        "MEDIAMESH_LOG_LEVEL": "warning",
        "MEDIAMESH_STREAMS_PORT": str(port),
        "MEDIAMESH_STREAMS_MAX_CONCURRENT_CALLS": "20000",
        "MEDIAMESH_STREAMS_VALKEY_URL": f"redis://127.0.0.1:{valkey_port}/0",
        **environment,
    }
    program = Program(
        name="broker",
        argv=[sys.executable, "-m", "mediamesh.streams"],
        env=variables,
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
    )
    async with (
        running(valkey(port=valkey_port, data=folder), folder / "valkey.log") as store,
        running(program, folder / "broker.log", echo=print) as process,
    ):
        processes = {"broker": process.pid, "valkey": store.pid}
        yield Carrier(wire="broker", target=f"127.0.0.1:{port}", processes=processes)


@asynccontextmanager
async def relay(folder: Path, *options: str) -> AsyncGenerator[Carrier]:
    """Run the bare relay."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs in this loop
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "tests.benchmarks.streaming.relay", "--port", str(port), *options]
    program = Program(name="relay", argv=argv, probe=partial(grpc_serving, f"127.0.0.1:{port}"))
    async with running(program, folder / "relay.log", echo=print) as process:
        yield Carrier(wire="relay", target=f"127.0.0.1:{port}", processes={"relay": process.pid})


@asynccontextmanager
async def door(folder: Path, carrier: Carrier) -> AsyncGenerator[Carrier]:
    """Run an Envoy, as the mesh configures it, in front of a carrier; yield the carrier behind it."""
    port, admin_port = free_ports(2)
    host, _, number = carrier.target.rpartition(":")
    config = Door(
        host="127.0.0.1",
        port=port,
        admin_port=admin_port,
        servers={name: [(host, int(number))] for name in SERVERS},
        template=UpSettings().envoy_template,
        folder=folder / "envoy",
        access_log=folder / "access.jsonl",
        web=folder,
        drain_seconds=1,
    )
    async with running(envoy(config), folder / "envoy.log", echo=print) as process:
        processes = {**carrier.processes, "envoy": process.pid}
        yield Carrier(wire=carrier.wire, target=f"127.0.0.1:{port}", processes=processes)


@asynccontextmanager
async def plain_valkey(folder: Path) -> AsyncGenerator[Carrier]:
    """Run a Valkey that is spoken to without any broker; ``wire`` is left to the caller."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs in this loop
    (port,) = free_ports(1)
    async with running(valkey(port=port, data=folder), folder / "valkey.log") as process:
        yield Carrier(wire="", target=f"127.0.0.1:{port}", processes={"valkey": process.pid})
