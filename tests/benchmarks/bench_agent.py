"""What an agent costs: the hop to a trivial one, and what the classifier adds to its bare work.

All in one process and one run, the variants interleaved round by round, so that what else the machine does hits each
alike. The media service is left out: the picture comes inline, as bytes (its cost is in the benchmark of the flow).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.table import Table

from mediamesh.agent import Agent, AgentSettings, Run, parse_manifest, serving_agents
from mediamesh.agents.image_classifier import ImageClassifier
from mediamesh.agents.image_classifier.agent import best
from mediamesh.agents.image_classifier.preprocessing import preprocess
from mediamesh.api.agent.v1.agent_service_pb2 import DescribeRequest, DescribeResponse, OpenRun
from mediamesh.api.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.app import app as inference_app
from mediamesh.inference.settings import Settings as InferenceSettings
from mediamesh.kit.serve import serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

MODELS = Path(__file__).resolve().parents[2] / "deploy" / "models" / "repository"
MODEL = "efficientnet_lite0_int8"


class Trivial(Agent):
    """Gives back what it gets."""

    def describe(self) -> Manifest:
        """Say so."""
        return parse_manifest(
            "{id: bench.trivial, version: 1.0.0, inputs: [{name: a, type: string}], outputs: [{name: a, type: string}]}"
        )

    async def process(self, run: Run) -> dict[str, str]:
        """Do nothing."""
        return {"a": run.inputs["a"]}


def photo() -> bytes:
    """Return a 640 by 480 JPEG with the detail of a photograph."""
    rows, columns = np.mgrid[0:480, 0:640]
    noise = np.random.default_rng(1).normal(0, 20, (480, 640))
    waves = 127 + 80 * np.sin(rows / 17) * np.cos(columns / 23) + noise
    image = Image.fromarray(np.stack([waves, waves[::-1], waves[:, ::-1]], axis=-1).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def bare(data: bytes) -> Callable[[], Awaitable[object]]:
    """Return the classifier's work without any mesh: decode, preprocess, one ``session.run``, top five."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODELS / MODEL / "1" / "model.onnx", options)

    def work() -> object:
        pixels = preprocess(data)[np.newaxis]
        return best(np.asarray(session.run(None, {"input": pixels})[0])[0], 5)

    return lambda: asyncio.to_thread(work)


async def measure(rounds: int) -> dict[str, list[float]]:
    """Return milliseconds by variant."""
    data = photo()
    settings = InferenceSettings(model_repository=MODELS, cpu_threads=1)
    async with AsyncExitStack() as stack:
        part = await stack.enter_async_context(inference_app(settings))
        port = await stack.enter_async_context(serving(settings, part))
        inference = await stack.enter_async_context(
            InferenceClient(await stack.enter_async_context(connect(f"127.0.0.1:{port}")))
        )
        classifier = ImageClassifier(inference, model=MODEL, max_images=8, max_pixels=64_000_000)
        port = await stack.enter_async_context(serving_agents(AgentSettings(), Trivial(), classifier))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{port}"))
        client, stub = AgentClient(channel), AgentServiceStub(channel)
        trivial = OpenRun(agent_id="bench.trivial")
        trivial.inputs["a"].text = "x"
        classify = OpenRun(agent_id="mediamesh.image-classifier")
        classify.inputs["image"].media.type = MediaType.MEDIA_TYPE_IMAGE
        classify.inputs["image"].media.inline = data
        pixels = preprocess(data)[np.newaxis]

        async def run(opening: OpenRun) -> None:
            async for _ in client.run(opening):
                pass

        async def describe() -> DescribeResponse:
            return await stub.Describe(DescribeRequest(agent_id="bench.trivial"))

        variants: dict[str, Callable[[], Awaitable[object]]] = {
            "unary call (Describe)": describe,
            "trivial agent": lambda: run(trivial),
            "bare decode + preprocess + session.run": bare(data),
            "inference server alone": lambda: inference.infer(MODEL, {"input": pixels}),
            "classifier": lambda: run(classify),
        }
        times = defaultdict(list)
        for number in range(rounds + 5):
            for name, variant in variants.items():
                begin = time.perf_counter()
                await variant()
                if number >= 5:
                    times[name].append((time.perf_counter() - begin) * 1000)
        return times


async def throughput(seconds: float, at_once: int) -> float:
    """Return trivial runs a second, client and server in this one process."""
    opening = OpenRun(agent_id="bench.trivial")
    opening.inputs["a"].text = "x"
    count = 0
    async with serving_agents(AgentSettings(), Trivial()) as port, connect(f"127.0.0.1:{port}") as channel:
        client = AgentClient(channel)
        end = time.perf_counter() + seconds

        async def loop() -> None:
            nonlocal count
            while time.perf_counter() < end:
                async for _ in client.run(opening):
                    pass
                count += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(loop())
    return count / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    times = asyncio.run(measure(rounds))
    table = Table(title=f"An agent's cost, {rounds} rounds", caption="milliseconds")
    for column in ("", "p50", "p90", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in times.items():
        table.add_row(name, *(f"{np.percentile(values, share):.2f}" for share in (50, 90, 99)))
    console = Console()
    console.print(table)
    added = np.median(times["classifier"]) - np.median(times["bare decode + preprocess + session.run"])
    console.print(f"the classifier adds {added:.2f} ms to its bare work (median)")
    console.print(
        f"{asyncio.run(throughput(3.0, 16)):.0f} trivial runs a second, 16 at once, client and server on one core"
    )


if __name__ == "__main__":
    main()
