"""``mediamesh demo``: from nothing to an answer about a real photo, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mediamesh.wire.shipped import shipped

__all__ = ["MeshProcess", "demo", "mesh_up"]

EXAMPLES = shipped("clients/examples")
_READY_SECONDS = 90.0
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class MeshProcess:
    """A mesh that runs as ``mediamesh up``.

    Attributes:
        door: ``host:port`` that it listens on.
        data: Where it keeps everything.
        pid: The supervisor's process.
    """

    door: str
    data: Path
    pid: int


def demo(
    photo: Annotated[Path, typer.Option(help="The photo to look at.")] = EXAMPLES / "media" / "cat.jpg",
    flow: Annotated[Path, typer.Option(help="The flow to run.")] = EXAMPLES / "flows" / "classify.mlab",
) -> None:
    """Start the mesh, run a flow on a photo, print its events and the answer, stop the mesh."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mediamesh-demo-") as data:
        begin = time.monotonic()
        with mesh_up(Path(data)) as mesh:
            console.print(f"The mesh is up at {mesh.door} ({time.monotonic() - begin:.1f} s).", highlight=False)
            command = ["run", str(flow), "--input", f"upload.file={photo}", "--server", mesh.door]
            console.print("$ mediamesh " + " ".join(command), style="bold", soft_wrap=True, highlight=False)
            done = subprocess.run([sys.executable, "-m", "mediamesh.cli.main", *command], check=False)
        console.print("The mesh is down.")
    raise typer.Exit(done.returncode)


@contextmanager
def mesh_up(data: Path, **environment: str) -> Generator[MeshProcess]:
    """Run ``mediamesh up`` on a free port as a process of its own; yield it when it is ready.

    Args:
        data: Where it keeps everything, its output in ``up.log`` too.
        environment: Variables on top of this process's own.

    Raises:
        RuntimeError: it ended or was not ready within 90 seconds; the text ends with its last lines.
    """
    # Only here: a client can do without all that a mesh is made of.
    from mediamesh.stack.ports import free_ports  # noqa: PLC0415

    (port,) = free_ports(1)
    log = data / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "mediamesh.cli.main", "up", "--port", str(port), "--data", str(data)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(up, port, log)
        yield MeshProcess(f"127.0.0.1:{port}", data, up.pid)
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _wait_until_ready(up: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end and up.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"the mesh did not come up:\n{last}")
