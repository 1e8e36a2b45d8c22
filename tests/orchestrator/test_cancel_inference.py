"""Cancelling a run reaches the agent, and takes what the agent asked for out of the inference server's queue."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from mediamesh.agent import Agent, AgentSettings, parse_manifest, serving_agents
from mediamesh.client.inference import InferenceClient
from mediamesh.inference import statistics
from mediamesh.inference.app import app as inference_app
from mediamesh.inference.settings import Settings as InferenceSettings
from mediamesh.kit.serve import serving
from tests.inference import models
from tests.inference.conftest import gate
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

__all__ = ["gate"]

MODEL, REQUESTS = "patient_double", 5
# One at a time: while the first is held, the others wait in the queue.
ALONE = "max_batch_size: 1 dynamic_batching {} instance_group { count: 1 }"


class Waiter(Agent):
    """Asks for what does not come."""

    def __init__(self, address) -> None:
        self._address = address

    def describe(self):
        return parse_manifest("{id: test.waiter, version: 1.0.0}")

    @asynccontextmanager
    async def lifespan(self):
        async with InferenceClient(self._address) as self._client:
            yield

    async def process(self, run):
        ones = np.ones((1, 2), np.float32)
        await asyncio.gather(*(self._client.infer(MODEL, {"x": ones}) for _ in range(REQUESTS)))
        return {}


@pytest.fixture
async def inference(tmp_path):
    models.add_model(tmp_path, MODEL, models.double(), ALONE)
    own = InferenceSettings(model_repository=tmp_path, grace_seconds=0.2)
    async with inference_app(own) as part, serving(own, part) as port:
        yield f"127.0.0.1:{port}"


async def test_cancelling_a_run_empties_the_queue_of_the_inference_server(settings, inference, gate) -> None:
    async with (
        serving_agents(AgentSettings(port=0), Waiter(inference)) as port,
        orchestrating(settings(agent_addresses=[f"127.0.0.1:{port}"])) as mesh,
    ):
        gate.shut()
        run = (await mesh.flows.start(flow("wait test.waiter"))).execution_id
        await gate.entered()
        await until((REQUESTS - 1, 0))
        await mesh.flows.cancel(run)
        await until((0, REQUESTS - 1))
        gate.open()


async def until(wanted) -> None:
    async with asyncio.timeout(10):
        while counted() != wanted:  # noqa: ASYNC110 - the queue tells nobody how long it is
            await asyncio.sleep(0.01)


def counted():
    """Return how many requests wait, and how many were cancelled before they ran."""
    return sum(known.waiting() for known in of_the_model()), sum(known.drops()["cancelled"] for known in of_the_model())


def of_the_model():
    return [known for known in statistics._ALL if known.labels["model"] == MODEL]
