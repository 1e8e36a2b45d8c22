"""Stores of streams: the one in memory and the one in Valkey, which every test of a store runs against."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from redis import asyncio as redis

from mediamesh.streams.log.memory import Memory, MemoryStore
from mediamesh.streams.log.valkey import ValkeyStore

_RULES: dict[str, Any] = {
    "replica": "a",
    "max_concurrent_streams": 100,
    "resume_seconds": 60,
    "buffer_ttl_seconds": 60,
    "meta_ttl_seconds": 120,
    "news_kept": 6,
}


@pytest.fixture
async def empty_valkey(valkey_url):
    """Return the address of a Valkey database with nothing in it; the session's Valkey has others."""
    url = f"{valkey_url.removesuffix('/0')}/7"
    async with redis.Redis.from_url(url, protocol=2) as client:
        await client.flushdb()
        yield url
        await client.flushdb()


def _opening_in_memory():
    memory = Memory(news_kept=_RULES["news_kept"])

    def opening(**rules):
        return MemoryStore.open(memory, **{name: rule for name, rule in rules.items() if name != "news_kept"})

    return opening


@pytest.fixture(params=["memory", "valkey"])
def opening(request):
    """Return what makes a store that keeps its streams in one of the two places."""
    if request.param == "memory":
        return _opening_in_memory()
    return partial(ValkeyStore.open, request.getfixturevalue("empty_valkey"))


@pytest.fixture
async def open_store(opening):
    """Return what opens a store for as long as the test lasts; all share their streams, as replicas do."""
    async with AsyncExitStack() as stack:

        async def make(**changes):
            return await stack.enter_async_context(opening(**{**_RULES, **changes}))

        yield make


@pytest.fixture
async def store(open_store):
    """Return a store of streams."""
    return await open_store()


@pytest.fixture
async def replicas(open_store):
    """Return two stores of the same streams."""
    return await open_store(replica="a"), await open_store(replica="b")


@pytest.fixture
def long_polls(monkeypatch):
    """Let a poll wait so long that only a wake-up ends it in time."""
    monkeypatch.setattr("mediamesh.streams.log.memory._BLOCK_SECONDS", 600)
    monkeypatch.setattr("mediamesh.streams.log.poller._BLOCK_MS", 600_000)


@pytest.fixture
def empty_valkey_url(empty_valkey):
    """Return the same address to a test that runs loops of its own."""
    return empty_valkey
