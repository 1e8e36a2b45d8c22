"""``mediamesh serve``: any of the servers, in one process."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    names: Annotated[list[str], typer.Argument(help="Any of media, inference, agents, streams, orchestrator.")],
) -> None:
    """Serve the named servers on one port until SIGTERM; the settings of the first say where."""
    if importlib.util.find_spec("mediamesh.kit") is None or importlib.util.find_spec("grpc_health") is None:
        typer.echo("The servers are not installed; pip install 'mediamesh[all]' brings them.", err=True)
        raise typer.Exit(2)
    # Only here: a client can do without all that a server is made of.
    from mediamesh.kit.process import SERVERS, main  # noqa: PLC0415

    if unknown := sorted(set(names) - set(SERVERS)):
        typer.echo(f"There is no server {', '.join(unknown)}; there are {', '.join(SERVERS)}.", err=True)
        raise typer.Exit(2)
    main(*names)
