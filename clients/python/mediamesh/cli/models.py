"""``mediamesh models``: which models there are, fetch them, check them, and say where they are."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mediamesh.cli.door import errors_as_sentences
from mediamesh.models.progress import PullProgress

if TYPE_CHECKING:
    from mediamesh.models.manifest import Model
    from mediamesh.models.store import Store

__all__ = ["models"]

models = typer.Typer(help="Pull models and say where they are.", no_args_is_help=True)
# A narrow terminal cuts what a model is for, and nothing before it.
_COLUMNS = {"set": 9, "model": 23, "state": 10, "size": 9, "licence": 12, "what for": 0}
_WIDE = 200  # columns of a table that goes into a file
_NEEDED = ("httpx", "onnx", "numpy", "pydantic_settings")
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of pulled models. [default: MEDIAMESH_MODELS_CACHE, or mediamesh/models in ~/.cache]"),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="[MODEL|SET]...", help="Models, or sets of models.")]


@models.command("list")
def list_models(names: Names = None, cache: Cache = None) -> None:
    """List what can be pulled, what is here, how large it is, and under which licence."""
    with _store(cache) as store:
        table = Table(box=None)
        for heading, width in _COLUMNS.items():
            table.add_column(heading, min_width=width, no_wrap=True, justify="right" if heading == "size" else "left")
        for model in _chosen(store, names, everything=True):
            table.add_row(model.set, model.name, *_standing(store, model), model.licence, model.purpose)
        terminal = Console()
        (terminal if terminal.is_terminal else Console(width=_WIDE)).print(table)


@models.command()
def pull(
    names: Names = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All models.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Make those that are here anew, too.")] = False,
    keep_downloads: Annotated[
        bool, typer.Option("--keep-downloads", help="Leave packages in the cache once their models are made.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Fetch models and convert them; what broke off goes on where it was."""
    with PullProgress() as progress, _store(cache, progress) as store:
        wanted = _chosen(store, names, everything=everything)
        store.pull(wanted, again=again, keep_downloads=keep_downloads)
        total = sum(store.cache.size(model) for model in wanted)
        progress.note(f"{len(wanted)} models are here: {total / 1e6:.1f} MB in {store.cache.root}")


@models.command()
def verify(names: Names = None, cache: Cache = None) -> None:
    """Read the files of pulled models again and hold them against their SHA-256; all when none is named."""
    from mediamesh.models.store import State  # noqa: PLC0415 - a client can do without the store

    with _store(cache) as store:
        chosen = _chosen(store, names, everything=True)
        present = chosen if names else [model for model in chosen if store.state(model) is State.HERE]
        faults = [fault for model in present for fault in store.verify(model)]
        for fault in faults:
            typer.echo(fault, err=True)
        if faults:
            typer.echo("`mediamesh models pull --again MODEL` makes a model anew.", err=True)
            raise typer.Exit(1)
        typer.echo(f"{len(present)} models are as they were made.")


@models.command()
def path(
    name: Annotated[str, typer.Argument(metavar="[MODEL]", help="Print the folder of this model's files.")] = "",
    *,
    repository: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET", help="Print a model repository with this set, in Triton's layout; may be repeated."
        ),
    ] = None,
    pull_missing: Annotated[bool, typer.Option("--pull", help="Pull first what is missing.")] = False,
    cache: Cache = None,
) -> None:
    """Print where a model's files are, or a directory that an inference server can serve."""
    if bool(name) == bool(repository):
        typer.echo("Name a model, or --repository SET.", err=True)
        raise typer.Exit(2)
    with PullProgress() as progress, _store(cache, progress) as store:
        if pull_missing:
            store.pull(store.manifest.choose(repository or [name]))
        found = store.repository(repository) if repository else store.files(name)
    typer.echo(found)


@contextmanager
def _store(cache: Path | None, watcher: PullProgress | None = None) -> Generator[Store]:
    """Open the store; what goes wrong in the block ends the program with a sentence."""
    if importlib.util.find_spec("mediamesh.models") is None or any(map(_missing, _NEEDED)):
        typer.echo("The model store is not installed; pip install 'mediamesh[models]' brings it.", err=True)
        raise typer.Exit(2)
    # Only here: a client can do without the store.
    from mediamesh.kit.settings import SettingsError  # noqa: PLC0415
    from mediamesh.models.settings import Settings  # noqa: PLC0415
    from mediamesh.models.store import open_store  # noqa: PLC0415
    from mediamesh.models.watcher import SILENT  # noqa: PLC0415

    try:
        settings = Settings.load() if cache is None else Settings.load(cache=cache)
    except SettingsError as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from None
    with errors_as_sentences(), open_store(settings, watcher or SILENT) as store:
        yield store


def _missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def _chosen(store: Store, names: list[str] | None, *, everything: bool) -> tuple[Model, ...]:
    if names:
        return store.manifest.choose(names)
    if not everything:
        typer.echo(f"Name models or sets, or --all; sets are {', '.join(store.manifest.sets)}.", err=True)
        raise typer.Exit(2)
    return store.manifest.models


def _standing(store: Store, model: Model) -> tuple[str, str]:
    """Return state and size; of a model that is not here, what a pull of it alone downloads."""
    from mediamesh.models.store import State  # noqa: PLC0415 - a client can do without the store

    state = store.state(model)
    if state is State.HERE:
        return state.value, f"{store.cache.size(model) / 1e6:.1f} MB"
    download = sum(item.size for item in model.downloads)
    return state.value, f"↓ {download / 1e6:.1f} MB" if download else "shipped"
