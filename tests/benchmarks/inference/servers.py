"""Inference servers as processes, each from a source tree, and what loads them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ROOT", "Server", "serving"]

ROOT = Path(__file__).resolve().parents[3]
_ROOTS = ("servers", "clients/python", "generated/python")


class Server:
    """A server that runs.

    Attributes:
        port: Its port.
        process: Its process.
    """

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port = port
        self.process = process

    def load(self, model: str, method: str, in_flight: int, seconds: float) -> dict[str, float]:
        """Load it from a process of its own; return what was seen there, and what it cost here."""
        before = self.process.cpu_times()
        output = subprocess.run(
            [
                sys.executable, "-m", "tests.benchmarks.inference.load", "--port", str(self.port), "--model", model,
                "--method", method, "--in-flight", str(in_flight), "--seconds", str(seconds),
            ],
            check=True, stdout=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        after = self.process.cpu_times()
        seen: dict[str, float] = json.loads(output.stdout)
        spent = after.user + after.system - before.user - before.system
        return {**seen, "server_cpu_us": spent / seen["requests"] * 1e6, "rss_mb": self.rss() / 1e6}

    def rss(self) -> int:
        """Return the bytes of memory that it holds."""
        return int(self.process.memory_info().rss)


@contextmanager
def serving(repository: Path, tree: Path = ROOT, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server of a source tree.

    Args:
        repository: Its models.
        tree: Holds servers, clients and generated code.
        settings: More environment variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(tree / root) for root in _ROOTS),
        "MEDIAMESH_INFERENCE_MODEL_REPOSITORY": str(repository),
        "MEDIAMESH_INFERENCE_PORT": str(port),
        "MEDIAMESH_LOG_LEVEL": "warning",
        **(settings or {}),
    }
    process = subprocess.Popen([sys.executable, "-m", "mediamesh.inference"], env=environment, cwd=tree)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(20)
