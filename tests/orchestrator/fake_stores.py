"""Orchestrators over one log in memory, each with a store of its own that may fail or wait as a test says."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mediamesh.orchestrator.runlog.memory import MemoryStore
from mediamesh.wire.errors import Unavailable
from tests.orchestrator.conftest import orchestrating

__all__ = ["FakeStore", "LosesConnections", "orchestrating_over"]


class FakeStore:
    """The store of one orchestrator; as others can read what is in it, a run is handed over when its orchestrator goes.

    Args:
        memory: What all the stores have in common.
        lease_seconds: How long who runs something is alive without saying so.
    """

    def __init__(self, memory, *, lease_seconds=60.0):
        self._store = MemoryStore(memory, replica=secrets.token_hex(4), ttl_seconds=60, lease_seconds=lease_seconds)

    def __getattr__(self, name):
        return getattr(self._store, name)


class LosesConnections(FakeStore):
    """From the first event on that its orchestrator says, loses every question about it once.

    Attributes:
        lost: The questions.
    """

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.speaks = False
        self.lost = set()

    async def append(self, batch):
        await self._store.append(batch)
        self.speaks = True

    async def read(self, *position):
        self._lose(position)
        return await self._store.read(*position)

    async def load(self, executions):
        self._lose(tuple(executions))
        return await self._store.load(executions)

    def _lose(self, question):
        if self.speaks and question not in self.lost:
            self.lost.add(question)
            raise Unavailable("The log of runs is away.")


@asynccontextmanager
async def orchestrating_over(store, own):
    """Run an orchestrator with this store; yield as `orchestrating` does."""
    opened = asyncio.get_running_loop().create_future()
    opened.set_result(store)
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mediamesh.orchestrator.app._store", lambda *_: opened)
            mesh = await stack.enter_async_context(orchestrating(own))
        yield mesh
