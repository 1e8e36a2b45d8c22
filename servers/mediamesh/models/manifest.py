"""The manifest ``deploy/models/models.toml``: every model that is shipped or fetched, as frozen dataclasses.

A table ``[package.NAME]`` pins one wheel; each ``[[model]]`` says which files of it, or of this repository, a converter
makes the model's files of. What is wrong is told with the file, the entry and the key.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from mediamesh.models.errors import ManifestError
from mediamesh.models.manifest_entry import Entry
from mediamesh.wire.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["Manifest", "Model", "Package", "PackageFile", "ShippedFile", "Source", "UrlFile", "read_manifest"]

_NAME = r"[a-z0-9][a-z0-9_]{0,63}"
_PACKAGE = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
_VERSION = r"[0-9][0-9A-Za-z.!+-]{0,63}"
_SHA256 = r"[0-9a-f]{64}"
_FILE = r"(?!\.)[A-Za-z0-9._-]{1,128}"  # beside others of a version: no folder, nothing hidden
_PATH = r"(?!/)(?!.*(^|/)\.\.?(/|$))[^\\\x00]{1,512}"  # within an archive or this repository, never above it


@dataclass(frozen=True)
class Package:
    """A wheel that a package index offers, pinned by its digest."""

    name: str
    version: str
    sha256: str
    size: int  # bytes
    platform: str = ""  # tag of a wheel that fits one platform only; the file in it fits all

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PackageFile:
    """One file of a wheel."""

    package: Package
    file: str


@dataclass(frozen=True)
class UrlFile:
    """A file that a web server offers, pinned by its digest."""

    url: str
    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class ShippedFile:
    """A file that comes with mediamesh; ``path`` is relative to the manifest."""

    path: str
    sha256: str


Source: TypeAlias = PackageFile | UrlFile | ShippedFile


@dataclass(frozen=True)
class Model:
    """What can be pulled: a model with a config.pbtxt for a backend, or data that stands by models."""

    name: str
    set: str
    backend: str  # that of its config.pbtxt; empty for data, which no inference server loads
    converter: str  # a module of mediamesh.models.converters
    sources: Mapping[str, Source]  # what the converter asks for, by its names
    files: Mapping[str, str]  # what it writes, with the sha256; an empty one where the bytes may differ
    licence: str
    purpose: str
    config: str  # path of the config.pbtxt relative to the manifest; empty for data
    origin: str  # where shipped files are from

    @property
    def downloads(self) -> frozenset[Package | UrlFile]:
        """What has to be fetched."""
        fetched = (source.package if isinstance(source, PackageFile) else source for source in self.sources.values())
        return frozenset(source for source in fetched if not isinstance(source, ShippedFile))


@dataclass(frozen=True)
class Manifest:
    """All models; ``root`` is the folder of the manifest."""

    root: Path
    models: tuple[Model, ...]

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """The names of the sets, in the order of the file."""
        return tuple(dict.fromkeys(model.set for model in self.models))

    def of_set(self, name: str) -> tuple[Model, ...]:
        """Return the models of a set.

        Raises:
            NotFound: there is no such set.
        """
        if name not in self.sets:
            raise NotFound(f"There is no set {name!r}; there are {', '.join(self.sets)}.")
        return tuple(model for model in self.models if model.set == name)

    def choose(self, names: Iterable[str]) -> tuple[Model, ...]:
        """Return the models of these names; the name of a set stands for all its models.

        Raises:
            NotFound: there is neither a model nor a set of a name.
        """
        chosen: dict[str, Model] = {}
        by_name = {model.name: model for model in self.models}
        for name in names:
            if name not in by_name and name not in self.sets:
                known = f"models {', '.join(by_name)}; sets {', '.join(self.sets)}"
                raise NotFound(f"There is no model and no set {name!r}; there are {known}.")
            found = [by_name[name]] if name in by_name else self.of_set(name)
            chosen |= {model.name: model for model in found}
        return tuple(chosen.values())


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestError: it cannot be read, or an entry is wrong; names the file, the entry and the key.
    """
    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from error
    top = Entry(f"{path}", whole)
    packages = {name: _package(name, entry) for name, entry in top.tables("package").items()}
    models = [_model(entry, packages) for entry in top.list_of_tables("model")]
    top.done()
    names = [model.name for model in models] + list({model.set: None for model in models})
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ManifestError(f"{path}: {', '.join(doubled)}: named twice; models and sets share one space of names.")
    sources = [source for model in models for source in model.sources.values()]
    used = {source.package.name for source in sources if isinstance(source, PackageFile)}
    if unused := sorted(set(packages).difference(used)):
        raise ManifestError(f"{path}: package {', '.join(unused)}: no model uses it.")
    return Manifest(path.parent, tuple(models))


def _package(name: str, entry: Entry) -> Package:
    entry.check("the name", name, _PACKAGE)
    return entry.done(
        Package(
            name,
            version=entry.text("version", _VERSION),
            sha256=entry.text("sha256", _SHA256),
            size=entry.integer("size"),
            platform=entry.text("platform", r"[a-z0-9_]+", default=""),
        )
    )


def _model(entry: Entry, packages: Mapping[str, Package]) -> Model:
    name = entry.text("name", _NAME)
    entry.rename(f"model {name}")
    set_name = entry.text("set", _NAME)
    backend = entry.text("backend", _NAME, default="")
    default_config = f"sets/{set_name}/{name}/config.pbtxt" if backend else ""
    model = Model(
        name=name,
        set=set_name,
        backend=backend,
        converter=entry.text("converter", _NAME),
        sources={key: _source(table, packages) for key, table in entry.tables("sources").items()},
        files=_files(entry),
        licence=entry.text("licence"),
        purpose=entry.text("purpose"),
        config=entry.text("config", _PATH, default=default_config),
        origin=entry.text("origin", default=""),
    )
    if not model.sources:
        raise entry.error("sources", "none; a model is made of at least one file.")
    return entry.done(model)


def _files(entry: Entry) -> Mapping[str, str]:
    files = entry.texts("files", rf"({_SHA256})?")
    for name in files:
        entry.check("files", name, _FILE)
    if not files:
        raise entry.error("files", "none; expected the files that the converter writes.")
    return files


def _source(entry: Entry, packages: Mapping[str, Package]) -> Source:
    if "package" in entry:
        name = entry.text("package")
        if name not in packages:
            raise entry.error("package", f"there is no [package.{name}].")
        return entry.done(PackageFile(packages[name], entry.text("file", _PATH)))
    if "url" in entry:
        url = entry.text("url", r"(https?|file)://[!-~]+")
        return entry.done(UrlFile(url, entry.text("sha256", _SHA256), entry.integer("size")))
    return entry.done(ShippedFile(entry.text("path", _PATH), entry.text("sha256", _SHA256)))
