"""A decoupled backend for tests: it answers with its input as often as the request says, also never.

``with repeat_backend(): ...`` lets servers that are started in the block load models that :func:`add_repeat` wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from mediamesh.inference.backend import Backend
from mediamesh.inference.configuration import config as config_module
from mediamesh.inference.configuration import fields
from mediamesh.inference.datatypes import TensorSpec
from mediamesh.inference.model import BACKENDS
from mediamesh.inference.scheduling import Call
from mediamesh.inference.statistics import Statistics
from mediamesh.inference.tensors import Signature
from mediamesh.wire.errors import MeshError

__all__ = ["Repeater", "add_repeat", "repeat_backend"]

NAME = "test_repeat"
_CONFIG = f"""
backend: "{NAME}"
model_transaction_policy {{ decoupled: true }}
input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}
input {{ name: "times" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}
output {{ name: "index" data_type: TYPE_INT32 dims: [ 1 ] }}
"""


class Repeater:
    """Answers ``times`` times with the input ``x`` as ``y``, and the number of the answer as ``index``.

    A negative number gives as many answers and then fails. The counters are for tests that watch it.

    Attributes:
        running: Requests that are being answered.
        begun: Requests that were ever answered.
        made: Answers made, by whomever.
        cancelled: Requests that were left before their last answer.
        changed: Set whenever a counter changes; the watcher clears it.
    """

    def __init__(self, name: str, version: int) -> None:
        self.statistics = Statistics(name, str(version))
        self.running = self.begun = self.made = self.cancelled = 0
        self.changed = asyncio.Event()

    async def run(self, call: Call) -> list[np.ndarray]:
        raise AssertionError("a decoupled model is asked for its stream")

    async def stream(self, call: Call) -> AsyncGenerator[list[np.ndarray]]:
        times = int(call.inputs["times"][0])
        self.running += 1
        self.begun += 1
        finished = False
        try:
            for index in range(abs(times)):
                await asyncio.sleep(0)
                self.made += 1
                self.changed.set()
                outputs = {"y": call.inputs["x"], "index": np.array([index], np.int32)}
                yield [outputs[name] for name in call.outputs]
            finished = True
            if times < 0:
                raise MeshError(f"The repeater failed after {-times} answers, as it was asked.")
        finally:
            self.running -= 1
            self.cancelled += not finished
            self.changed.set()


def add_repeat(repository: Path, name: str = "repeat") -> Path:
    """Write such a model into a repository and return its directory."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(_CONFIG)
    return directory


@contextmanager
def repeat_backend() -> Iterator[list[Repeater]]:
    """Register the backend; yields the models that are loaded meanwhile."""
    loaded: list[Repeater] = []

    @asynccontextmanager
    async def open_repeat(directory, version, config, _settings) -> AsyncGenerator[Backend]:
        config.name = directory.name
        inputs = [TensorSpec("x", "FP32", (-1,)), TensorSpec("times", "INT32", (1,))]
        outputs = [TensorSpec("y", "FP32", (-1,)), TensorSpec("index", "INT32", (1,))]
        repeater = Repeater(directory.name, version)
        loaded.append(repeater)
        yield Backend(config, Signature(f"{directory.name}/{version}", inputs, outputs, 0), repeater, ("test",))

    supported = {**fields.SUPPORTED, NAME: fields.SUPPORTED[fields.DECODER]}
    with (
        mock.patch.dict(BACKENDS, {NAME: open_repeat}),
        mock.patch.object(fields, "SUPPORTED", supported),
        mock.patch.object(config_module, "SUPPORTED", supported),
    ):
        yield loaded
