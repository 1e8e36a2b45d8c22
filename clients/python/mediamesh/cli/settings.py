"""``mediamesh settings``: every variable that can be set, what it is for and what it is now."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mediamesh.kit.settings import Settings

__all__ = ["settings"]

_SECTIONS = {
    "common": "mediamesh.kit.settings.CommonSettings",
    "up": "mediamesh.stack.settings.UpSettings",
    "media": "mediamesh.media.settings.Settings",
    "inference": "mediamesh.inference.settings.Settings",
    "agent": "mediamesh.agent.settings.AgentSettings",
    "agents": "mediamesh.agents.settings.Settings",
    "streams": "mediamesh.streams.settings.Settings",
    "models": "mediamesh.models.settings.Settings",
    "edge": "mediamesh.edge.settings.Settings",
    "orchestrator": "mediamesh.orchestrator.settings.Settings",
}


def settings(
    section: Annotated[str, typer.Argument(help="One of " + ", ".join(_SECTIONS) + "; all when empty.")] = "",
) -> None:
    """List what can be set by MEDIAMESH_* variables, or by tables of the TOML file that MEDIAMESH_CONFIG names."""
    if importlib.util.find_spec("pydantic_settings") is None:
        typer.echo("The servers are not installed; pip install 'mediamesh[all]' brings them.", err=True)
        raise typer.Exit(2)
    if section and section not in _SECTIONS:
        typer.echo(f"There is no section {section}; there are {', '.join(_SECTIONS)}.", err=True)
        raise typer.Exit(2)
    console = Console()
    for name in [section] if section else _SECTIONS:
        console.print(_table(name, _load(_SECTIONS[name])))


def _load(path: str) -> type[Settings]:
    module, _, name = path.rpartition(".")
    kind: type[Settings] = getattr(importlib.import_module(module), name)
    return kind


def _table(name: str, kind: type[Settings]) -> Table:
    table = Table(title=name, title_justify="left", box=None)
    for heading in ("variable", "default", "what for"):
        table.add_column(heading, overflow="fold")
    for field, info in kind.model_fields.items():
        default = "required" if info.is_required() else str(info.get_default(call_default_factory=True))
        table.add_row(kind.variable(field), default, info.description)
    return table
