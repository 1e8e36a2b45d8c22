"""The folder that pulled models are kept in.

``sets/SET/NAME``   a model, ready for an inference server: config.pbtxt, pulled.json, and its files in ``1/``
``data/NAME``       data that stands by models, likewise without config.pbtxt
``repositories/``   several sets as one repository, made of links
``downloads/``      wheels on their way
``work/``           what is being made; moved to its place in one step
``locks/``          one file for each thing that only one process may make at a time

A model is there, whole, or it is not: it is put together in ``work`` and renamed. Locks are the operating system's
(flock), so a process that is killed leaves none behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.models.digests import sha256_of
from mediamesh.models.watcher import SILENT, Watcher

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from mediamesh.models.manifest import Model

__all__ = ["VERSION", "Cache", "Receipt"]

VERSION = "1"  # the version directory of every model; a manifest knows one version of each
_RECEIPT = "pulled.json"


@dataclass(frozen=True)
class Receipt:
    """What a model was made by, and what came of it."""

    recipe: str
    files: Mapping[str, str]  # SHA-256 by name


class Cache:
    """The folder; it is made when something is first put into it.

    Args:
        root: Where it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def downloads(self) -> Path:
        """Where wheels are brought."""
        return self.root / "downloads"

    def directory(self, model: Model) -> Path:
        """Return the place of a model, whether it is there or not."""
        return self.root / "sets" / model.set / model.name if model.backend else self.root / "data" / model.name

    def files(self, model: Model) -> Path:
        """Return the place of a model's files, whether they are there or not."""
        return self.directory(model) / VERSION

    def set_directory(self, name: str) -> Path:
        """Return the model repository of a set."""
        return self.root / "sets" / name

    def receipt(self, model: Model) -> Receipt | None:
        """Return what is known of a pulled model; None when it is not there."""
        try:
            read = json.loads((self.directory(model) / _RECEIPT).read_text(encoding="utf-8"))
            return Receipt(str(read["recipe"]), {str(name): str(digest) for name, digest in read["files"].items()})
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            return None  # torn or foreign: what is not known to be whole is pulled again

    @contextmanager
    def locked(self, name: str, watcher: Watcher = SILENT) -> Generator[None]:
        """Keep other processes from making the same thing for as long as the block lasts."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                watcher.note(f"{name}: another process is at it; waiting for it to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def workshop(self, model: Model) -> Generator[Path]:
        """Give an empty folder to make a model in, beside its place; to be entered under the model's lock."""
        work = self.root / "work"
        work.mkdir(parents=True, exist_ok=True)
        for left in work.glob(f"{model.name}.*"):  # of a process that was killed
            shutil.rmtree(left)
        folder = work / f"{model.name}.{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def install(self, made: Path, model: Model, recipe: str) -> None:
        """Write the receipt of a model that was made, and move it to its place; an older one goes away."""
        files = {path.name: sha256_of(path) for path in sorted((made / VERSION).iterdir())}
        receipt = json.dumps({"recipe": recipe, "files": files}, indent=1)
        (made / _RECEIPT).write_text(receipt + "\n", encoding="utf-8")
        for path in (made / VERSION, made):
            _flush(path)
        place = self.directory(model)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.rename(made.with_name(f"{made.name}.old"))
        made.rename(place)
        shutil.rmtree(made.with_name(f"{made.name}.old"), ignore_errors=True)

    def write_config(self, model: Model, content: bytes) -> None:
        """Give a model its config.pbtxt in one step, where it has another one."""
        place = self.directory(model) / "config.pbtxt"
        if not place.is_file() or place.read_bytes() != content:
            new = place.with_name(f".config.pbtxt.{uuid.uuid4().hex[:8]}")
            new.write_bytes(content)
            new.replace(place)

    def link(self, name: str, models: Iterable[Model]) -> Path:
        """Return a repository of links to models, made anew where it lists others."""
        place = self.root / "repositories" / name
        wanted = {model.name: self.directory(model) for model in models}
        if _links(place) != wanted:
            with self.locked(f"repository.{name}"):
                if _links(place) != wanted:  # another process may have made it, and use it by now
                    shutil.rmtree(place, ignore_errors=True)
                    place.mkdir(parents=True)
                    for own, target in wanted.items():
                        (place / own).symlink_to(target)
        return place

    def size(self, model: Model) -> int:
        """Return the bytes that a pulled model takes."""
        return sum(path.stat().st_size for path in self.directory(model).rglob("*") if path.is_file())


def _links(folder: Path) -> Mapping[str, Path] | None:
    """Return where the links of a folder lead; None where there is no such folder, or it is being made anew."""
    try:
        return {path.name: path.readlink() for path in folder.iterdir()}
    except OSError:
        return None


def _flush(folder: Path) -> None:
    """Bring the files of a folder to the disk before the folder is renamed, lest a crash leaves names without bytes."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
