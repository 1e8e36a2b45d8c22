"""A real Valkey that dies, comes back, forgets or hangs under a store, and what crashes of ours leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from redis import asyncio as redis

from mediamesh.api.stream.v1.stream_pb2 import StreamEnd, StreamState
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.programs import valkey
from mediamesh.streams.log import valkey as store_module
from mediamesh.streams.log.ports import Append, Entry, Outcome
from mediamesh.streams.log.valkey import ValkeyStore
from mediamesh.wire.errors import Unavailable
from tests.streams.test_store import NEVER, created, entries_of, produced, put, sequences, standing, until

pytestmark = pytest.mark.stack

_RULES: dict[str, Any] = {
    "replica": "a",
    "max_concurrent_streams": 1000,
    "resume_seconds": 60,
    "buffer_ttl_seconds": 60,
    "meta_ttl_seconds": 120,
}


class Box:
    """A Valkey of the test's own, always on one port and with one file."""

    def __init__(self, folder):
        (self._port,) = free_ports(1)
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @asynccontextmanager
    async def __call__(self):
        # With `everysec` Valkey puts writes off for as long as the disk is busy with the sync before: killed then, it
        # has lost what it acknowledged.
        program = valkey(port=self._port, data=self._folder, fsync="always")
        async with running(program, self._folder / "valkey.log") as process:
            yield process


@pytest.fixture
def box(tmp_path):
    """Return what starts a Valkey."""
    return Box(tmp_path)


async def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()


async def insisting(ask):
    """Ask until Valkey is there, and return the answer."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                return await ask()
            await asyncio.sleep(0.02)


async def test_no_acknowledged_append_is_lost_when_valkey_is_killed_and_started_again(box):
    acknowledged: dict[str, int] = {}

    async def produce(store, stream_id, last):
        for sequence in range(1, last + 1):
            append = Append(stream_id=stream_id, epoch=1, entries=entries_of(sequence, sequence, 200))
            appended = await insisting(lambda append=append: store.append(append))
            assert appended.outcome is Outcome.STORED
            acknowledged[stream_id] = sequence

    async def total():
        return sum(acknowledged.values())

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(ValkeyStore.open(box.url, **_RULES))
        first = await stack.enter_async_context(box())
        ids = [await produced(store, items=10_000) for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            for stream_id in ids:
                group.create_task(produce(store, stream_id, 300))
            await until(lambda done: done > 1000, total)
            await kill(first)
            before = dict(acknowledged)
            # The rest is appended by the second, which has the file of the first.
            await stack.enter_async_context(box())
        assert sum(before.values()) < 20 * 300
        for stream_id in ids:
            assert await sequences(store, stream_id) == list(range(1, 301))
        assert await store.live() == 20


async def test_without_valkey_all_say_so_at_once(box):
    async with ValkeyStore.open(box.url, **_RULES) as store:
        asking = [
            store.check(),
            created(store),
            put(store, "s", 1, 1),
            put(store, "s", 1, 1, end=StreamEnd()),
            store.take("s", "p", 0),
            store.load(["s"]),
            store.page("w"),
            store.page("w", live_only=True),
            store.read("s", 0, items=1, size=1),
            store.poll({"s": 0}),
            store.wake(),
            store.news("", 1),
            store.newest_news(),
            store.overdue(1),
            store.live(),
        ]
        async with asyncio.timeout(10):
            done = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(outcome) for outcome in done} == {Unavailable}


async def test_who_polls_hears_again_when_valkey_is_back(box, long_polls):
    async with ValkeyStore.open(box.url, **_RULES) as store:
        async with box() as first, redis.Redis.from_url(box.url) as client:
            stream_id = await produced(store)
            await store.wake()  # so that this does not wait for events that nobody appends
            await store.poll({stream_id: 0})
            async with asyncio.TaskGroup() as group:
                polling = group.create_task(_outcome(store.poll({stream_id: 0})))
                await until(lambda clients: clients["blocked_clients"] == 1, lambda: client.info("clients"))
                await kill(first)
            assert isinstance(polling.result(), Unavailable)
        async with box():
            await insisting(lambda: put(store, stream_id, 1, 2))
            polled = await insisting(lambda: store.poll({stream_id: 0}))
            assert dict(polled.entries) == {stream_id: entries_of(1, 2)}


async def _outcome(asking):
    try:
        return await asking
    except Unavailable as error:
        return error


async def test_a_restart_that_nobody_saw_is_not_felt(box):
    async with ValkeyStore.open(box.url, **_RULES) as store:
        async with box() as first:
            stream_id = await produced(store)
            await put(store, stream_id, 1, 2)
            await kill(first)
        async with box():
            assert (await put(store, stream_id, 3, 3)).outcome is Outcome.STORED
            assert await sequences(store, stream_id) == [1, 2, 3]


async def test_a_valkey_that_hangs_is_away_until_it_goes_on(box, monkeypatch):
    async with box() as process, ValkeyStore.open(box.url, **_RULES) as store:
        stream_id = await produced(store)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with monkeypatch.context() as impatient, pytest.raises(Unavailable, match="too slow"):
                impatient.setattr("mediamesh.streams.log.lane._BATCH_SECONDS", 0.3)
                await put(store, stream_id, 1, 1)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert (await insisting(lambda: put(store, stream_id, 1, 1))).outcome is Outcome.STORED
        assert await sequences(store, stream_id) == [1]


async def test_a_server_that_stands_still_while_it_connects_takes_valkey_for_there(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        asking = asyncio.ensure_future(store.check())
        for _ in range(3):
            await asyncio.sleep(0)  # so far that it connects
        time.sleep(2.5)  # noqa: ASYNC251 - this is what is tested
        await asking


async def test_a_valkey_that_forgot_the_scripts_is_told_again(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store, redis.Redis.from_url(empty_valkey) as client:
        ids = [await produced(store) for _ in range(10)]
        for turn in (1, 2):
            await client.script_flush()
            done = await asyncio.gather(*(put(store, stream_id, turn, turn) for stream_id in ids))
            assert {appended.newest for appended in done} == {turn}


async def test_who_is_cancelled_leaves_the_others_their_answers(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        ids = [await produced(store) for _ in range(10)]
        tasks = [asyncio.ensure_future(put(store, stream_id, 1, 1)) for stream_id in ids]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in done[::2]} == {asyncio.CancelledError}
        assert {getattr(outcome, "outcome", outcome) for outcome in done[1::2]} == {Outcome.STORED}


async def test_what_waits_when_the_store_closes_is_told(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        waiting = asyncio.ensure_future(store.check())
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await waiting


async def test_a_stream_that_was_admitted_and_never_created_makes_room_again(empty_valkey, monkeypatch):
    monkeypatch.setattr(store_module, "_CREATE_MS", 50)
    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        with monkeypatch.context() as crash:
            crash.setattr(store_module, "rules_of", _crashing)
            with pytest.raises(_CrashError):
                await created(store)
        assert await store.live() == 1
        await until(lambda live: live == 0, lambda: _swept(store))


async def _swept(store):
    assert await store.overdue(10) == []
    return await store.live()


class _CrashError(Exception):
    """What a test raises where a process would die."""


def _crashing(*_args):
    raise _CrashError


async def test_an_end_that_was_not_told_is_told_by_somebody_else(empty_valkey, monkeypatch):
    monkeypatch.setattr(store_module, "_END_MS", 50)

    async def crashing(*_args):
        raise _CrashError

    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        stream_id = await produced(store)
        with monkeypatch.context() as crash:
            crash.setattr(store, "_tell_end", crashing)
            with pytest.raises(_CrashError):
                await put(store, stream_id, 1, 1, end=StreamEnd(reason="stop"))
        assert await store.live() == 1
        await until(lambda live: live == 0, lambda: _swept(store))
        assert [news.kind for news in await store.news("", 9)] == ["opened", "taken", "ended"]


async def test_a_stream_whose_end_did_not_come_through_lives_on(empty_valkey, monkeypatch):
    monkeypatch.setattr(store_module, "_END_MS", 0)
    async with ValkeyStore.open(empty_valkey, **_RULES) as store:
        stream_id = await produced(store)
        assert (await put(store, stream_id, 7, 7, end=StreamEnd(reason="stop"))).outcome is Outcome.AHEAD
        for _ in range(3):
            assert await store.overdue(10) == []
        assert (await standing(store, stream_id)).stream.state == StreamState.STREAM_STATE_LIVE
        assert await store.live() == 1


async def test_all_keys_of_a_stream_expire(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store, redis.Redis.from_url(empty_valkey) as client:
        stream_id = await produced(store, 1, items=2)
        await put(store, stream_id, 1, 2)
        await put(store, stream_id, 3, 3, readers={"r": 2})
        keys = await client.keys("stream:*")
        assert len(keys) == 3
        assert all([0 < await client.pttl(key) <= (300 + 120) * 1000 for key in keys])
        await put(store, stream_id, 4, 4, end=StreamEnd())
        assert sorted(await client.keys("stream:*")) == sorted(
            [f"stream:buf:{{{stream_id}}}".encode(), f"stream:meta:{{{stream_id}}}".encode()]
        )
        assert 0 < await client.pttl(f"stream:buf:{{{stream_id}}}") <= 60_000
        assert 0 < await client.pttl(f"stream:meta:{{{stream_id}}}") <= 120_000


async def test_the_index_of_a_workspace_forgets_streams_that_are_gone(empty_valkey):
    rules = {**_RULES, "buffer_ttl_seconds": 0.001, "meta_ttl_seconds": 0.001}
    async with ValkeyStore.open(empty_valkey, **rules) as store, redis.Redis.from_url(empty_valkey) as client:
        for _ in range(150):
            stream_id = await created(store)
            append = Append(stream_id=stream_id, epoch=0, entries=[Entry(1, b"")], end=StreamEnd())
            await store.append(append)
        assert await client.zcard("streams:of:w") < 30


async def test_the_trimmed_log_in_valkey_has_what_is_counted(empty_valkey):
    async with ValkeyStore.open(empty_valkey, **_RULES) as store, redis.Redis.from_url(empty_valkey) as client:
        stream_id = await produced(store, items=50, size=3000)
        for first in range(1, 400, 7):
            await put(store, stream_id, first, first + 6, size=first % 90)
        length = await client.xlen(f"stream:buf:{{{stream_id}}}")
        page = await store.read(stream_id, 0, items=NEVER, size=NEVER)
        assert page is not None
        assert length == len(page.entries) <= 50
        assert sum(len(entry.data) for entry in page.entries) <= 3000
