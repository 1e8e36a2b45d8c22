"""``mediamesh serve``: any of the servers, in one process."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]

_MODELS = "inference"


def serve(
    names: Annotated[list[str], typer.Argument(help="Any of media, inference, agents, streams, orchestrator.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; as the settings say when empty.")] = "",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on, 0 a free one; as the settings say if unset."),
    ] = None,
    model_repository: Annotated[
        Path | None, typer.Option(help="Directory of the models that the inference server serves.")
    ] = None,
    model_control: Annotated[
        str, typer.Option(help="none, explicit or poll: whether models are loaded on request, or as files change.")
    ] = "",
    load_model: Annotated[
        list[str] | None, typer.Option(help="A model that explicit control loads at the start, * for all. May repeat.")
    ] = None,
) -> None:
    """Serve the named servers on one port until SIGTERM; the settings of the first say where, options come before."""
    if importlib.util.find_spec("mediamesh.kit") is None or importlib.util.find_spec("grpc_health") is None:
        typer.echo("The servers are not installed; pip install 'mediamesh[all]' brings them.", err=True)
        raise typer.Exit(2)
    # Only here: a client can do without all that a server is made of.
    from mediamesh.kit.process import SERVERS, main  # noqa: PLC0415

    if unknown := sorted(set(names) - set(SERVERS)):
        typer.echo(f"There is no server {', '.join(unknown)}; there are {', '.join(SERVERS)}.", err=True)
        raise typer.Exit(2)
    models = {
        "model_repository": "" if model_repository is None else str(model_repository),
        "model_control": model_control,
        "load_models": json.dumps(load_model) if load_model else "",
    }
    if any(models.values()) and _MODELS not in names:
        typer.echo(f"The options about models are for the server {_MODELS}.", err=True)
        raise typer.Exit(2)
    _override(names[0], {"host": host, "port": "" if port is None else str(port)})
    _override(_MODELS, models)
    main(*names)


def _override(server: str, settings: Mapping[str, str]) -> None:
    """Let options win over what the environment and the file of settings say."""
    for name, value in settings.items():
        if value:
            os.environ[f"MEDIAMESH_{server}_{name}".upper()] = value
