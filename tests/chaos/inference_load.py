"""Two inference servers that can be broken, callers behind one pool, and the history of what they were answered."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper

from mediamesh.client.inference import InferenceClient
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving
from mediamesh.stack.programs import Program
from mediamesh.wire.errors import MeshError
from tests.chaos.cluster import Part
from tests.inference import models

__all__ = ["Asked", "Load", "add_version", "address", "faults", "inference_servers", "loaded"]

# What a version multiplies its input by.
FACTORS = {1: 2.0, 2: 3.0, 3: 5.0}
MODEL = "times"


class Asked(NamedTuple):
    """One thing that happened to one request.

    Attributes:
        time: Monotonic clock.
        kind: ``asked``, ``answered`` or ``failed``.
        number: Which request; its input, too.
        version: Version of the model that answered.
        value: What it answered.
        note: The error.
    """

    time: float
    kind: str
    number: int
    version: int = 0
    value: float = 0.0
    note: str = ""


def faults(records: Iterable[Asked]) -> Iterator[str]:
    """Yield a sentence for every request that was not answered once and right."""
    asked, answers = set(), Counter[int]()
    for record in records:
        if record.kind == "asked":
            asked.add(record.number)
            continue
        answers[record.number] += 1
        if record.number not in asked:
            yield f"{record.number} was {record.kind} before it was asked"
        if record.kind == "failed":
            yield f"{record.number} failed: {record.note}"
        elif record.value != record.number * FACTORS[record.version]:
            yield f"{record.number} was answered {record.value} by version {record.version}"
    for number in sorted(asked):
        if answers[number] != 1:
            yield f"{number} was answered {answers[number]} times"


def add_version(repository: Path, version: int) -> None:
    """Write a version that multiplies by its factor; whole before it can be seen."""
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [], [FACTORS[version]])
    ends = ("FP32", ["N", 1])
    content = models.onnx_bytes([helper.make_node("Mul", ["x", "factor"], ["y"])], {"x": ends}, {"y": ends}, [factor])
    directory = repository / MODEL
    directory.mkdir(exist_ok=True)
    (directory / "config.pbtxt").write_text("max_batch_size: 16 dynamic_batching {}")
    made = repository.parent / f"new-{version}"
    made.mkdir()
    (made / "model.onnx").write_bytes(content)
    made.rename(directory / str(version))


@asynccontextmanager
async def inference_servers(folder: Path, count: int = 2) -> AsyncGenerator[Sequence[Part]]:
    """Run so many servers, each with a repository of its own in ``folder/N``; yield them."""
    async with AsyncExitStack() as stack:
        parts = []
        for number, port in enumerate(free_ports(count)):
            repository = folder / str(number) / "models"
            repository.mkdir(parents=True)
            add_version(repository, 1)
            part = Part(_program(number, port, repository), folder / str(number))
            stack.push_async_callback(part.close)
            parts.append(part)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part.start())
        yield parts


def address(part: Part) -> str:
    """Return where a server is."""
    return f"127.0.0.1:{part.program.env['MEDIAMESH_INFERENCE_PORT']}"


def _program(number: int, port: int, repository: Path) -> Program:
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "model_repository": repository,
        "model_control": "explicit",
        "load_models": json.dumps(["*"]),
        "grace_seconds": 5,
    }
    return Program(
        name=f"inference-{number}",
        argv=[sys.executable, "-m", "mediamesh.inference"],
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
        env={f"MEDIAMESH_INFERENCE_{key.upper()}": str(value) for key, value in settings.items()},
        ready_seconds=60,
        stop_seconds=20,
    )


class Load:
    """Callers that ask without a pause.

    Attributes:
        client: Their pool.
        records: What happened.
    """

    def __init__(self, client: InferenceClient, callers: int) -> None:
        self.client = client
        self.records: list[Asked] = []
        self._callers = callers
        self._over = False
        self._number = 0
        self._answered = asyncio.Condition()

    @property
    def answers(self) -> int:
        """How many were answered so far."""
        return sum(record.kind == "answered" for record in self.records)

    async def run(self) -> None:
        """Ask until it is over; every fourth request is a call of its own."""
        async with asyncio.TaskGroup() as group:
            for caller in range(self._callers):
                group.create_task(self._call(alone=caller % 4 == 0))

    async def more(self, answers: int = 200) -> None:
        """Wait until so many more were answered."""
        wanted = self.answers + answers
        async with asyncio.timeout(60), self._answered:
            await self._answered.wait_for(lambda: self.answers >= wanted)

    def end(self) -> None:
        """Let each caller finish the request that it has begun."""
        self._over = True

    async def _call(self, *, alone: bool) -> None:
        ask = self.client.infer_alone if alone else self.client.infer
        while not self._over:
            self._number += 1
            number = self._number
            self._note("asked", number)
            try:
                answer = await ask(MODEL, {"x": np.array([[number]], np.float32)}, timeout=30)
            except MeshError as error:
                self._note("failed", number, note=f"{type(error).__name__}: {error.text}")
                await asyncio.sleep(0.01)
            else:
                self._note(
                    "answered", number, version=int(answer.message.model_version), value=float(answer["y"][0, 0])
                )
            async with self._answered:
                self._answered.notify_all()

    def _note(self, kind: str, number: int, *, version: int = 0, value: float = 0.0, note: str = "") -> None:
        self.records.append(Asked(time.monotonic(), kind, number, version, value, note))


@asynccontextmanager
async def loaded(parts: Sequence[Part], callers: int = 8) -> AsyncGenerator[Load]:
    """Run callers behind one pool over the servers for as long as the block lasts."""
    async with (
        InferenceClient(*(address(part) for part in parts), patience=20) as client,
        asyncio.TaskGroup() as group,
    ):
        load = Load(client, callers)
        group.create_task(load.run())
        try:
            await load.more(50)
            yield load
        finally:
            load.end()
