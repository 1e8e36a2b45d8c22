"""Real inference servers, on the vendored model and on tiny ones, spoken to through the real client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app
from mediamesh.inference.batching.pace import Here
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.settings import Settings
from mediamesh.kit.serve import serving
from tests.inference import models


@asynccontextmanager
async def inference_server(repository: Path, **settings) -> AsyncIterator[int]:
    own = Settings(model_repository=repository, grace_seconds=0.5, **settings)
    async with app(own) as part, serving(own, part) as port:
        yield port


@pytest.fixture(scope="session")
async def lite0() -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of the vendored repository."""
    async with inference_server(models.VENDORED) as port, connect(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    models.add_model(repository, "double", models.double(), "max_batch_size: 8 dynamic_batching {}")
    models.add_model(repository, "ragged", models.double(width="W"), "max_batch_size: 8 dynamic_batching {}")
    models.add_model(repository, "pick", models.pick(), "max_batch_size: 8 dynamic_batching {}")
    models.add_model(repository, "pair", models.sum_and_difference())
    labelled = models.add_model(repository, "labelled", models.double(width=3), models.LABELLED)
    (labelled / "labels.txt").write_text("ant\nbee\n")
    for kind in models.TYPES:
        models.add_model(repository, f"identity_{kind}", models.identity(kind), "max_batch_size: 0 " + _io(kind))
    return repository


def _io(kind: str) -> str:
    name = "STRING" if kind == "BYTES" else kind
    return "".join(
        f'{end} {{ name: "{tensor}" data_type: TYPE_{name} dims: [-1, -1] }} '
        for end, tensor in (("input", "x"), ("output", "y"))
    )


@pytest.fixture(scope="session")
async def tiny(tiny_repository) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of tiny models."""
    async with inference_server(tiny_repository) as port, connect(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture
async def client(tiny) -> AsyncIterator[InferenceClient]:
    async with InferenceClient(tiny) as client:
        yield client


class Gate:
    """Holds every run of a model while it is shut, and remembers the batches since."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()
        self._used = False

    def shut(self) -> None:
        self._used = True
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def entered(self) -> None:
        """Wait until one more run stands before the gate."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=20)

    def pass_through(self, inputs) -> None:
        if self._used:
            self.batches.append(len(next(iter(inputs.values()))))
            self._entered.release()
            assert self._open.wait(20)


@pytest.fixture
def gate(monkeypatch):
    """A gate before every run, open at first; for servers that were started before it, too."""
    own, run = Gate(), Session.run

    def gated(self, inputs, outputs):
        own.pass_through(inputs)
        return run(self, inputs, outputs)

    monkeypatch.setattr(Session, "run", gated)
    # A small model runs in the event loop, which a shut gate would stop.
    monkeypatch.setattr(Here, "takes", lambda *_: False)
    yield own
    own.open()
