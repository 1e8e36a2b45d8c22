"""Many runs at once, and many that are cancelled, leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import aclosing

import pytest
from redis import asyncio as redis

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.wire.errors import Cancelled, MeshError
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

pytestmark = pytest.mark.stack

BUSY = flow(
    "text test.echo, outputs: {text: hello}", "a test.echo", "make test.producer, params: {count: 20}",
    "count test.consumer", "paint test.painter", "see test.viewer", "show ui.stream-console", "wait test.slow",
    edges="text.text>a.text make.stream>count.stream paint.image>see.image a.text>show.input a.text>wait.text",
)  # fmt: skip


async def test_two_hundred_runs_at_once_all_succeed(settings) -> None:
    source = flow(
        "text test.echo, outputs: {text: hello}", "a test.echo", "b test.echo", edges="text.text>a.text a.text>b.text"
    )

    async def run(mesh):
        return [event async for event in mesh.flows.run(source)][-1].execution_finished.state

    async with orchestrating(settings()) as mesh:
        states = await asyncio.gather(*(run(mesh) for _ in range(200)))
    assert set(states) == {execution_pb2.EXECUTION_STATE_SUCCEEDED}


async def test_runs_cancelled_at_random_leave_no_task_and_no_key_without_an_end(settings, agents, valkey_url) -> None:
    agents.release.clear()
    chance, workspace = random.Random(7), secrets.token_hex(4)
    before = asyncio.all_tasks()

    async def run(mesh):
        seen, wanted = "", chance.randrange(1, 40)
        async with aclosing(mesh.flows.run(BUSY, workspace_id=workspace)) as events:
            async for event in events:
                seen = event.execution_id
                if event.sequence >= wanted:
                    return seen
        return seen

    async def start_and_cancel(mesh):
        execution = await mesh.flows.start(BUSY, workspace_id=workspace)
        await asyncio.sleep(chance.random() / 20)  # a random moment is what this is about
        await mesh.flows.cancel(execution.execution_id)
        return execution.execution_id

    async with orchestrating(settings()) as mesh:
        kinds = (run, start_and_cancel)
        async with asyncio.timeout(60):
            found = await asyncio.gather(*(kinds[number % 2](mesh) for number in range(100)))
            for execution_id in found:
                await agents.until(lambda execution_id=execution_id: agents.running[execution_id] == 0)
            ends = [[event async for event in mesh.flows.watch(execution_id)][-1] for execution_id in found]
    assert {end.execution_finished.state for end in ends} == {execution_pb2.EXECUTION_STATE_CANCELLED}
    assert {type(MeshError.from_status(end.execution_finished.error)) for end in ends} == {Cancelled}
    ours = {task.get_name() for task in asyncio.all_tasks() - before if "mediamesh" in repr(task.get_coro())}
    assert not {name for name in ours if name.startswith(("run ", "node "))}
    async with redis.Redis.from_url(valkey_url, protocol=2) as valkey:
        keys = [key async for key in valkey.scan_iter(match="mm:*")]
        assert all([await valkey.pttl(key) >= 0 or not await valkey.exists(key) for key in keys])
        assert not [key for key in keys if key.endswith(b":lease") and key.split(b"{")[1][:26].decode() in found]
