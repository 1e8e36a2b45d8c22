"""The models that a mesh on one machine serves: those that ship, and those that its agents need besides."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mediamesh.models.errors import ManifestError
from mediamesh.models.progress import PullProgress
from mediamesh.models.settings import Settings
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mediamesh.models.store import Store
    from mediamesh.stack.settings import UpSettings

__all__ = ["model_repository"]

_NEEDED = ("httpx", "numpy", "onnx")


def model_repository(settings: UpSettings, folder: Path, warn: Callable[[str], None]) -> Path:
    """Return the repository to serve, having pulled what is missing in it.

    A model that cannot be had is left out with a warning: all that does not need it works.

    Args:
        settings: Name the repository, and the models of the store that are to be served beside those in it.
        folder: Where a repository of links may be made.
        warn: Told what could not be pulled, and why.
    """
    if not settings.models:
        return settings.model_repository.absolute()
    wanted = {path.name: path.absolute() for path in settings.model_repository.iterdir() if path.is_dir()}
    if all(map(find_spec, _NEEDED)):
        wanted = {**_pulled(settings.models, warn), **wanted}
    else:
        warn("the model store is not installed, so only models that ship are served; mediamesh[models] brings it")
    _link(folder, wanted)
    return folder


def _pulled(names: list[str], warn: Callable[[str], None]) -> Mapping[str, Path]:
    from mediamesh.models.store import open_store  # noqa: PLC0415 - a mesh can do without the store

    try:
        with PullProgress() as progress, open_store(Settings.load(), progress) as store:
            return _here(store, names, warn)
    except (ManifestError, MeshError, OSError) as error:
        warn(f"models are missing, and agents that need them will fail: {error}")
        return {}


def _here(store: Store, names: list[str], warn: Callable[[str], None]) -> Mapping[str, Path]:
    from mediamesh.models.store import State  # noqa: PLC0415 - a mesh can do without the store

    models = [model for model in store.manifest.choose(names) if model.backend]
    try:
        store.pull(models)
    except MeshError as error:
        warn(f"models are missing, and agents that need them will fail: {error.text}")
    there = [model for model in models if store.state(model) is State.HERE]
    store.configure(there)
    return {model.name: store.cache.directory(model) for model in there}


def _link(folder: Path, wanted: Mapping[str, Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, target in wanted.items():
        (folder / name).symlink_to(target)
