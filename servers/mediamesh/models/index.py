"""Where the wheels of pinned packages are: pip is asked, with whatever index, proxy and login it is set up for.

``pip install --dry-run --report`` resolves names as an installation would and says URL and digest, without installing
or, where the index serves metadata apart (PEP 658), downloading anything.
"""

from __future__ import annotations

import ast
import json
import ssl
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import certifi
import httpx

from mediamesh.models.errors import PullFailed
from mediamesh.wire.errors import ChecksumMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mediamesh.models.manifest import Package

__all__ = ["Index", "PipIndex", "http_client"]

_SECONDS = 300


class Index(Protocol):
    """Knows where packages are."""

    def find(self, packages: Iterable[Package]) -> Mapping[Package, str]:
        """Return the URL of each package's wheel.

        Raises:
            PullFailed: one is not offered, or the index cannot be reached.
            ChecksumMismatch: the index offers another file than the one pinned.
        """
        ...


class PipIndex:
    """The index that this Python's pip is set up for."""

    def find(self, packages: Iterable[Package]) -> Mapping[Package, str]:
        """Return the URL of each package's wheel; dependencies and Requires-Python do not matter for files inside.

        Raises:
            PullFailed: one is not offered, or the index cannot be reached.
            ChecksumMismatch: the index offers another file than the one pinned.
        """
        by_platform = groupby(sorted(packages, key=lambda one: (one.platform, one.name)), lambda one: one.platform)
        return {
            package: url for platform, group in by_platform for package, url in _resolve(list(group), platform).items()
        }


def http_client() -> httpx.Client:
    """Return a client that trusts what pip trusts and goes through pip's proxy; to be closed by the caller.

    Certificates are those of the system, of certifi and of pip's ``cert``; logins come from ``.netrc``.
    """
    configured = _pip_configuration()
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    if own := configured.get("cert"):
        context.load_verify_locations(own)
    if identity := configured.get("client-cert"):
        context.load_cert_chain(identity)
    return httpx.Client(
        verify=context,
        proxy=configured.get("proxy") or None,
        auth=httpx.NetRCAuth() if Path("~/.netrc").expanduser().is_file() else None,
        timeout=httpx.Timeout(30, connect=15),
        follow_redirects=True,
        headers={"User-Agent": "mediamesh"},
    )


def _resolve(packages: list[Package], platform: str) -> dict[Package, str]:
    wanted = [f"{package.name}=={package.version}" for package in packages]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
        if platform:  # pip resolves for another platform only where it would not install into this Python
            options += ["--platform", platform, "--target", folder]
        done = _pip("install", "--quiet", *options, "--report", str(report), *wanted)
        if done.returncode or not report.is_file():
            raise PullFailed(
                f"pip does not find {', '.join(wanted)}: {_reason(done.stderr)} "
                f"Is there a network, and does `pip download --no-deps {wanted[0]}` work?"
            )
        found = {
            entry["metadata"]["name"]: entry["download_info"] for entry in json.loads(report.read_text())["install"]
        }
    by_name = {_normal(name): info for name, info in found.items()}
    return {package: _checked(package, by_name[_normal(package.name)]) for package in packages}


def _checked(package: Package, info: Mapping[str, object]) -> str:
    archive = info.get("archive_info")
    offered = archive.get("hashes", {}).get("sha256", package.sha256) if isinstance(archive, dict) else package.sha256
    if offered != package.sha256:
        raise ChecksumMismatch(
            f"{package}: the package index offers a file with SHA-256 {offered}, the manifest pins {package.sha256}."
        )
    return str(info["url"])


def _normal(name: str) -> str:
    """Return a package's name in the one spelling that PEP 503 allows for comparing."""
    return name.lower().replace("_", "-").replace(".", "-")


def _reason(stderr: str) -> str:
    said = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return said[0] if said else (stderr.strip().splitlines() or ["it gave no reason."])[-1]


def _pip_configuration() -> dict[str, str]:
    """Return pip's settings by their plain names; variables win over sections, and ``global`` loses."""
    lines = [line.partition("=") for line in _pip("config", "list").stdout.splitlines()]
    rank = {"global": 0, "install": 1, ":env:": 2}
    pairs = [(*name.rpartition(".")[::2], value) for name, _, value in lines if value]
    known = sorted((pair for pair in pairs if pair[0] in rank), key=lambda pair: rank[pair[0]])
    return {key: str(ast.literal_eval(value)) for _, key, value in known}


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise PullFailed(f"pip did not answer within {_SECONDS} s; is there a network?") from error
    if "No module named pip" in done.stderr:
        raise PullFailed("Packages are found with pip, which this Python lacks; `python -m ensurepip` brings it.")
    return done
