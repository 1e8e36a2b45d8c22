"""The model store: what is there, what has to be fetched, and how a model is made of it."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from mediamesh.models.cache import VERSION, Cache
from mediamesh.models.converters import converter
from mediamesh.models.digests import sha256_of
from mediamesh.models.download import Downloader, Pinned, disk_errors
from mediamesh.models.errors import BadWeights, ManifestError, PullFailed
from mediamesh.models.index import Index, PipIndex, http_client
from mediamesh.models.manifest import Manifest, Model, Package, PackageFile, ShippedFile, Source, UrlFile, read_manifest
from mediamesh.models.watcher import SILENT, Watcher
from mediamesh.models.wheel import extract
from mediamesh.wire.errors import ChecksumMismatch, MeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from mediamesh.models.settings import Settings

__all__ = ["State", "Store", "open_store"]


class State(Enum):
    """How a model stands in the cache."""

    ABSENT = "not pulled"
    OUTDATED = "outdated"  # pulled by another entry of the manifest than today's
    HERE = "here"


@contextmanager
def open_store(settings: Settings, watcher: Watcher = SILENT) -> Generator[Store]:
    """Put a store together from the settings, for as long as the block lasts.

    Raises:
        ManifestError: the manifest is wrong.
    """
    manifest = read_manifest(settings.manifest)
    with Downloader(http_client, attempts=settings.attempts, watcher=watcher) as downloader:
        yield Store(manifest, Cache(settings.cache), PipIndex(), downloader, watcher)


class Store:
    """Pulls the models of a manifest into a cache.

    Args:
        manifest: What there is.
        cache: Where it goes.
        index: Finds packages.
        downloader: Fetches them.
        watcher: Is told how it goes.
    """

    def __init__(
        self, manifest: Manifest, cache: Cache, index: Index, downloader: Downloader, watcher: Watcher = SILENT
    ) -> None:
        self.manifest, self.cache = manifest, cache
        self._index, self._downloader, self._watcher = index, downloader, watcher

    def state(self, model: Model) -> State:
        """Tell how a model stands, without reading its files."""
        receipt = self.cache.receipt(model)
        if receipt is None:
            return State.ABSENT
        whole = all((self.cache.files(model) / name).is_file() for name in receipt.files)
        return State.HERE if whole and receipt.recipe == _recipe(model) else State.OUTDATED

    def files(self, name: str) -> Path:
        """Return the folder that holds a pulled model's files.

        Raises:
            NotFound: there is no such model, or it is not pulled.
        """
        (model, *_) = self.manifest.choose([name])
        if model.name != name:
            raise NotFound(f"{name!r} is a set; `mediamesh models path --repository {name}` says where it is.")
        self._require([model])
        return self.cache.files(model)

    def repository(self, sets: Sequence[str]) -> Path:
        """Return a model repository with the models of these sets.

        Raises:
            NotFound: there is no such set, or one of its models is not pulled.
        """
        models = [model for name in sets for model in self.manifest.of_set(name) if model.backend]
        if not models:
            raise NotFound(f"{', '.join(sets)}: data only, no model to serve.")
        self._require(models)
        self.configure(models)
        if len(set(sets)) == 1:
            return self.cache.set_directory(sets[0])
        return self.cache.link("+".join(sorted(set(sets))), models)

    def configure(self, models: Iterable[Model]) -> None:
        """Give models that are here the config.pbtxt that the manifest has for them today."""
        for model in models:
            self.cache.write_config(model, self._config(model))

    def verify(self, model: Model) -> list[str]:
        """Read a pulled model's files again and return what is wrong with them, a sentence each.

        Raises:
            NotFound: it is not pulled.
        """
        self._require([model])
        receipt = self.cache.receipt(model)
        pinned = {name: digest for name, digest in model.files.items() if digest}
        known = {**(receipt.files if receipt else {}), **pinned}
        folder = self.cache.files(model)
        return [fault for name, digest in known.items() if (fault := _fault(folder / name, digest))]

    def pull(self, models: Iterable[Model], *, again: bool = False, keep_downloads: bool = False) -> None:
        """Make models that are not there; one that fails does not keep the others back.

        Args:
            models: Which ones.
            again: Make those that are there, too.
            keep_downloads: Leave wheels in the cache once their models are made.

        Raises:
            PullFailed: one could not be fetched or made, or several; names each.
            ChecksumMismatch: other bytes came, or came out, than the manifest pins.
        """
        wanted = [model for model in models if again or self.state(model) is not State.HERE]
        urls = self._find({item for model in wanted for item in model.downloads if isinstance(item, Package)})
        failures: dict[str, MeshError] = {}
        for model in wanted:
            try:
                with (
                    disk_errors(f"make {model.name}", self.cache.root / "work"),
                    self.cache.locked(model.name, self._watcher),
                ):
                    if again or self.state(model) is not State.HERE:  # another process may have made it
                        self._make(model, urls)
            except MeshError as error:
                failures[model.name] = error
        if not keep_downloads:
            self._clear({item for model in wanted if model.name not in failures for item in model.downloads})
        if len(failures) == 1:
            raise next(iter(failures.values()))
        if failures:
            told = "\n".join(f"  {name}: {error.text}" for name, error in failures.items())
            raise PullFailed(f"{len(failures)} of {len(wanted)} models could not be pulled:\n{told}")

    def _find(self, packages: Iterable[Package]) -> Mapping[Package, str | MeshError]:
        """Return where packages are; where one is not to be found, why. One question serves all when all are there."""
        missing = [package for package in packages if not self._target(package).is_file()]
        if not missing:
            return {}
        self._watcher.note(f"asking the package index for {', '.join(map(str, missing))}")
        try:
            return dict(self._index.find(missing))
        except MeshError as error:
            if len(missing) == 1:
                return {missing[0]: error}
        return {package: url for one in missing for package, url in self._find_alone(one).items()}

    def _find_alone(self, package: Package) -> Mapping[Package, str | MeshError]:
        try:
            return dict(self._index.find([package]))
        except MeshError as error:
            return {package: error}

    def _make(self, model: Model, urls: Mapping[Package, str | MeshError]) -> None:
        with self.cache.workshop(model) as folder:
            sources = folder / "sources"
            sources.mkdir()
            given = {
                name: self._bring(source, sources / f"{number}-{name}", urls)
                for number, (name, source) in enumerate(model.sources.items())
            }
            made = folder / "made"
            (made / VERSION).mkdir(parents=True)
            self._watcher.note(f"{model.name}: converting")
            converter(model.converter)(given, made / VERSION)
            _check(model, made / VERSION)
            if model.backend:
                (made / "config.pbtxt").write_bytes(self._config(model))
            self.cache.install(made, model, _recipe(model))

    def _bring(self, source: Source, target: Path, urls: Mapping[Package, str | MeshError]) -> Path:
        """Bring a source, checked, to a place of its own; a file that ships with mediamesh is used where it is."""
        match source:
            case ShippedFile():
                path = self.manifest.root / source.path
                if fault := _fault(path, source.sha256):
                    raise ChecksumMismatch(fault)
                return path
            case PackageFile(package=package):
                with self.cache.locked(self._target(package).name, self._watcher):
                    self._fetch(package, urls)
                    extract(self._target(package), source.file, target)
            case UrlFile():
                with self.cache.locked(self._target(source).name, self._watcher):
                    self._fetch(source, urls)
                    target.write_bytes(self._target(source).read_bytes())
            case _:
                assert_never(source)
        return target

    def _fetch(self, item: Package | UrlFile, urls: Mapping[Package, str | MeshError]) -> None:
        target = self._target(item)
        if target.is_file() and _fault(target, item.sha256) is None:
            return
        if isinstance(item, UrlFile):
            url: str | MeshError = item.url
        else:
            url = urls[item] if item in urls else self._find_alone(item)[item]
        if isinstance(url, MeshError):
            raise url
        target.parent.mkdir(parents=True, exist_ok=True)
        name = str(item) if isinstance(item, Package) else item.url.rpartition("/")[2]
        self._downloader.fetch(Pinned(name, url, item.sha256, item.size), target)

    def _target(self, item: Package | UrlFile) -> Path:
        """Return where a download lies; its name tells the content, so parts of another file are never gone on with."""
        name = item.name if isinstance(item, Package) else "url"
        return self.cache.downloads / f"{name}-{item.sha256[:16]}"

    def _clear(self, downloads: Iterable[Package | UrlFile]) -> None:
        for item in downloads:
            with self.cache.locked(self._target(item).name, self._watcher):
                self._target(item).unlink(missing_ok=True)

    def _config(self, model: Model) -> bytes:
        try:
            return (self.manifest.root / model.config).read_bytes()
        except OSError as error:
            raise ManifestError(f"{self.manifest.root}: model {model.name}: config: {error}") from error

    def _require(self, models: Iterable[Model]) -> None:
        if missing := [model.name for model in models if self.state(model) is not State.HERE]:
            names = " ".join(missing)
            raise NotFound(f"Not pulled, or outdated: {', '.join(missing)}; `mediamesh models pull {names}` brings it.")


def _check(model: Model, made: Path) -> None:
    """Hold what a converter wrote against what the manifest expects."""
    written = {path.name for path in made.iterdir()}
    if written != model.files.keys():
        raise BadWeights(
            f"{model.name}: converter {model.converter} wrote {', '.join(sorted(written)) or 'nothing'}, "
            f"the manifest expects {', '.join(sorted(model.files))}."
        )
    for name, digest in model.files.items():
        if digest and (fault := _fault(made / name, digest)):
            raise ChecksumMismatch(f"{model.name}: {fault}")


def _fault(path: Path, digest: str) -> str | None:
    """Return what is wrong with a file, as a sentence."""
    if not path.is_file():
        return f"{path}: there is no such file."
    found = sha256_of(path)
    return None if found == digest else f"{path}: SHA-256 is {found}, expected {digest}."


def _recipe(model: Model) -> str:
    """Return a digest of all that a model is made by; another one means that it has to be made anew."""
    sources = {
        name: [source.package.sha256, source.file] if isinstance(source, PackageFile) else [source.sha256]
        for name, source in sorted(model.sources.items())
    }
    parts = [model.name, model.converter, sources, dict(sorted(model.files.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
