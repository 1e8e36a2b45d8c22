"""A store of one tiny package, whose index is a dictionary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from mediamesh.models.cache import Cache
from mediamesh.models.download import Downloader
from mediamesh.models.errors import PullFailed
from mediamesh.models.manifest import Manifest, Model, Package, PackageFile, Source
from mediamesh.models.store import Store
from mediamesh.models.watcher import SILENT, Watcher

WEIGHTS = b"weights" * 20_000


class FakeIndex:
    """An index in memory."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self.urls = urls
        self.asked: list[list[str]] = []

    def find(self, packages: Iterable[Package]) -> Mapping[Package, str]:
        wanted = list(packages)
        self.asked.append([package.name for package in wanted])
        if missing := [package for package in wanted if package.name not in self.urls]:
            raise PullFailed(f"pip does not find {missing[0]}.")
        return {package: self.urls[package.name] for package in wanted}


def model(name: str, source: Package | Source, **changes) -> Model:
    """Return an entry that copies one file."""
    taken = PackageFile(source, "tiny/model.onnx") if isinstance(source, Package) else source
    entry = {
        "name": name,
        "set": "things",
        "backend": "onnxruntime",
        "converter": "plain_copy",
        "sources": {"model.onnx": taken},
        "files": {"model.onnx": hashlib.sha256(WEIGHTS).hexdigest()},
        "licence": "MIT",
        "purpose": "Tests",
        "config": "config.pbtxt",
        "origin": "",
    }
    return Model(**{**entry, **changes})


@contextmanager
def tiny_store(
    root: Path, models: Iterable[Model], urls: Mapping[str, str], watcher: Watcher = SILENT
) -> Iterator[tuple[Store, FakeIndex]]:
    """Open a store whose cache is ``root/cache``."""
    (root / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    index = FakeIndex(urls)
    # Certificates take longer to read than all else here, and nobody shows one.
    with Downloader(
        lambda: httpx.Client(verify=False), attempts=2, watcher=watcher, sleep=lambda _: None
    ) as downloader:
        yield Store(Manifest(root, tuple(models)), Cache(root / "cache"), index, downloader, watcher), index
