"""Serves agents that tests write inline."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from mediamesh.agent import AgentSettings, parse_manifest, serving_agents
from mediamesh.agent.agent import Agent
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient


@asynccontextmanager
async def _serve(*agents, **settings):
    async with serving_agents(AgentSettings(**settings), *agents) as port, connect(f"127.0.0.1:{port}") as channel:
        yield AgentClient(channel)


@pytest.fixture
def serve():
    """Return a context manager that serves agents and yields a client."""
    return _serve


@pytest.fixture
def agent():
    """Return what makes an agent of a function and the pins of its manifest."""

    def make(process, *, id="test.agent", inputs="[]", outputs="[]", params="[]"):  # noqa: A002
        class Made(Agent):
            def describe(self):
                return parse_manifest(
                    f"{{id: {id}, version: 1.0.0, inputs: {inputs}, outputs: {outputs}, params: {params}}}"
                )

            async def process(self, run):
                return await process(run)

        return Made()

    return make


async def given_up(work) -> None:
    """Begin work and give it up while it waits for room."""
    task = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
