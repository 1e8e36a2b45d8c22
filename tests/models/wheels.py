"""Tiny wheels, and a web server that offers files in every way that a bad day brings."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mediamesh.models.manifest import Package


def wheel(folder: Path, files: dict[str, bytes], name: str = "tiny-weights", version: str = "1.0") -> Path:
    """Write a wheel that pip takes for one."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        "Requires-Python: >=99\nRequires-Dist: torch\n".encode(),  # neither may keep a file from being read
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**files, **info}.items():
            archive.writestr(member, content)
    return path


def package(path: Path, name: str = "tiny-weights", version: str = "1.0") -> Package:
    """Return the entry of a manifest that pins a wheel."""
    return Package(name, version, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def metadata_of(path: Path) -> bytes:
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))


@dataclass
class Offer:
    """What the server has, and how it behaves."""

    files: dict[str, bytes]
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    statuses: list[int] = field(default_factory=list)  # of the next answers, before all is well
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range of every request
    url: str = ""
    hold: threading.Event | None = None  # answers with this content wait for it when half is sent
    held: str = ""  # path of the content that is held; all when empty


@contextmanager
def offering(files: dict[str, bytes]) -> Iterator[Offer]:
    """Serve files on a free port for as long as the block lasts."""
    offer = Offer(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            offer.asked.append((self.path, asked))
            if offer.statuses:
                self._answer(offer.statuses.pop(0), b"")
            elif self.path not in offer.files:
                self._answer(404, b"")
            else:
                self._offer(offer.files[self.path], asked)

        def _offer(self, content: bytes, asked: str) -> None:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and offer.ranges else 0
            if start and start >= len(content):
                self._answer(416, b"")
            elif start:
                told = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._answer(206, content[start:], {"Content-Range": told})
            else:
                self._answer(200, content)

        def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            kind = "text/html" if content.startswith(b"<html") else "application/octet-stream"
            told = {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            sent = offer.breaks.pop(0) if content and offer.breaks else len(content)
            self.wfile.write(content[: sent // 2])
            if content and offer.hold is not None and offer.held in {"", self.path}:
                self.wfile.flush()
                offer.hold.wait(110)  # less than a test may take, and more than other processes take to start
            with suppress(ConnectionError):  # who asked may have been killed
                self.wfile.write(content[sent // 2 : sent])
            self.close_connection = sent < len(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by its base
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        offer.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield offer
        finally:
            server.shutdown()
            thread.join()
