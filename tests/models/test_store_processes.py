"""The store with real pip and real processes: found, gone on with after kill -9, shared by two."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mediamesh.models.errors import PullFailed
from mediamesh.models.index import PipIndex, http_client
from mediamesh.wire.errors import ChecksumMismatch
from tests.models.tiny_store import WEIGHTS
from tests.models.wheels import metadata_of, offering, package, wheel

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return wheel(tmp_path_factory.mktemp("wheels"), {"tiny/model.onnx": WEIGHTS})


@pytest.fixture
def only(monkeypatch):
    """Let pip see nothing but what a test says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)

    def only(**settings: str) -> None:
        own = {"CONFIG_FILE": os.devnull, "RETRIES": "0", **settings}
        for name, value in own.items():
            monkeypatch.setenv(f"PIP_{name}", value)

    return only


def shelf(path: Path) -> dict[str, bytes]:
    """Return what an index of one package offers: its page (PEP 503), the wheel, and its metadata apart (PEP 658)."""
    content, metadata = path.read_bytes(), metadata_of(path)
    digests = [hashlib.sha256(one).hexdigest() for one in (content, metadata)]
    link = (
        f'<a href="/packages/{path.name}#sha256={digests[0]}" data-core-metadata="sha256={digests[1]}">{path.name}</a>'
    )
    return {
        "/simple/tiny-weights/": f"<html><body>{link}</body></html>".encode(),
        f"/packages/{path.name}": content,
        f"/packages/{path.name}.metadata": metadata,
    }


def test_pip_finds_a_wheel_in_a_folder_whatever_it_needs(tiny, only) -> None:
    only(NO_INDEX="1", FIND_LINKS=str(tiny.parent))
    assert PipIndex().find([package(tiny)]) == {package(tiny): tiny.as_uri()}


def test_pip_finds_a_wheel_in_the_index_that_it_is_set_up_for(tiny, only) -> None:
    with offering(shelf(tiny)) as offer:
        only(INDEX_URL=f"{offer.url}/simple")
        assert PipIndex().find([package(tiny)]) == {package(tiny): f"{offer.url}/packages/{tiny.name}"}


def test_an_index_with_another_file_of_that_version_is_refused(tiny, only, tmp_path) -> None:
    other = package(wheel(tmp_path, {"tiny/model.onnx": b"others"}))
    only(NO_INDEX="1", FIND_LINKS=str(tiny.parent))
    with pytest.raises(ChecksumMismatch, match=r"tiny-weights 1\.0: the package index offers a file with SHA-256"):
        PipIndex().find([other])


def test_without_an_index_the_error_says_what_to_try(tiny, only) -> None:
    with offering({}) as gone:
        pass
    only(INDEX_URL=f"{gone.url}/simple")
    with pytest.raises(PullFailed, match=r"pip does not find tiny-weights==1\.0: .* Is there a network"):
        PipIndex().find([package(tiny)])


def test_downloads_go_through_the_proxy_of_pip(only) -> None:
    with offering({"http://weights.example/tiny.whl": b"through a proxy"}) as offer:
        only(PROXY=offer.url)
        with http_client() as client:
            assert client.get("http://weights.example/tiny.whl").content == b"through a proxy"


@pytest.fixture
def manifest(tiny, tmp_path):
    entry = package(tiny)
    (tmp_path / "models.toml").write_text(
        textwrap.dedent(f"""
        [package.{entry.name}]
        version = "{entry.version}"
        sha256 = "{entry.sha256}"
        size = {entry.size}

        [[model]]
        name = "net"
        set = "things"
        backend = "onnxruntime"
        converter = "plain_copy"
        config = "config.pbtxt"
        licence = "MIT"
        purpose = "Tests"
        sources = {{ "model.onnx" = {{ package = "{entry.name}", file = "tiny/model.onnx" }} }}
        files = {{ "model.onnx" = "{hashlib.sha256(WEIGHTS).hexdigest()}" }}
        """)
    )
    (tmp_path / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    return tmp_path / "models.toml"


def mediamesh(manifest: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "MEDIAMESH_MODELS_MANIFEST": str(manifest),
        "MEDIAMESH_MODELS_CACHE": str(manifest.parent / "cache"),
    }
    command = [sys.executable, "-m", "mediamesh.cli.main", "models", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def when_there(folder: Path, pulling: subprocess.Popen[str]):
    """Return the part of a download as soon as there are bytes in it."""
    while pulling.poll() is None:
        for path in folder.glob("*.part"):
            if path.stat().st_size:
                return path
        time.sleep(0.01)
    raise AssertionError(pulling.communicate())


def test_a_pull_that_is_killed_leaves_nothing_broken_and_the_next_goes_on(tiny, only, manifest) -> None:
    cache = manifest.parent / "cache"
    with offering(shelf(tiny)) as offer:
        only(INDEX_URL=f"{offer.url}/simple")
        offer.held, offer.hold = f"/packages/{tiny.name}", threading.Event()
        with mediamesh(manifest, "pull", "net") as pulling:
            part = when_there(cache / "downloads", pulling)
            pulling.send_signal(signal.SIGKILL)
        assert not (cache / "sets").exists()
        offer.hold.set()
        before = part.stat().st_size
        with mediamesh(manifest, "pull", "net") as again:
            out, error = again.communicate(timeout=60)
            assert again.returncode == 0, out + error
        assert offer.asked[-1] == (f"/packages/{tiny.name}", f"bytes={before}-")
    assert (cache / "sets" / "things" / "net" / "1" / "model.onnx").read_bytes() == WEIGHTS
    assert not list((cache / "work").iterdir())
    assert not list((cache / "downloads").iterdir())


def test_two_processes_pull_one_model_with_one_download(tiny, only, manifest) -> None:
    with offering(shelf(tiny)) as offer:
        only(INDEX_URL=f"{offer.url}/simple")
        offer.held, offer.hold = f"/packages/{tiny.name}", threading.Event()
        with mediamesh(manifest, "pull", "net") as first:
            when_there(manifest.parent / "cache" / "downloads", first)
            with mediamesh(manifest, "path", "--repository", "things", "--pull") as second:
                assert second.stdout is not None
                assert second.stderr is not None
                assert any("another process is at it" in line for line in second.stderr)
                offer.hold.set()
                assert second.stdout.read().strip() == str(manifest.parent / "cache" / "sets" / "things")
        assert first.returncode == second.returncode == 0
        assert [path for path, _ in offer.asked].count(f"/packages/{tiny.name}") == 1
    with mediamesh(manifest, "verify") as verified:
        verified.communicate()
    assert verified.returncode == 0
