"""``mediamesh flow`` and ``mediamesh agents``: what can run, without running it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mediamesh.api.agent.v1 import manifest_pb2, pin_pb2
from mediamesh.cli.door import Server, complete, target
from mediamesh.cli.results import clean
from mediamesh.cli.run import checked, source
from mediamesh.client import Mesh
from mediamesh.wire.json import short_name

__all__ = ["agents", "check"]

Port = Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")]


def check(
    file: Annotated[Path, typer.Argument(help="The .mlab file.")], *, server: Server = "", port: Port = 8080
) -> None:
    """Check a flow; every mistake is printed with its line, and the exit code is 1 if there is one."""
    complete(_check(file, target(server, port)))


def agents(*, server: Server = "", port: Port = 8080) -> None:
    """List the agents that flows can use."""
    table = Table(box=None)
    for heading in ("agent", "version", "takes", "gives"):
        table.add_column(heading, no_wrap=True)
    table.add_column("")
    for manifest in complete(_agents(target(server, port))):
        pins = _pins(manifest.inputs), _pins(manifest.outputs)
        table.add_row(*(Text(clean(cell)) for cell in (manifest.id, manifest.version, *pins, manifest.description)))
    Console().print(table)


async def _check(path: Path, door: str) -> None:
    async with Mesh(door) as mesh:
        flow = await checked(mesh, source(path))
    told = f"{path}: {len(flow.nodes)} nodes and {len(flow.edges)} edges, no mistakes."
    Console().print(told, markup=False, soft_wrap=True)


async def _agents(door: str) -> list[manifest_pb2.Manifest]:
    async with Mesh(door) as mesh:
        return await mesh.flows.agents()


def _pins(pins: Iterable[pin_pb2.Pin]) -> str:
    types = pin_pb2.PinType.DESCRIPTOR
    return "\n".join(f"{pin.name} {short_name(types, pin_pb2.PinType.Name(pin.type))}" for pin in pins)
