"""Producers die, others take over, and those that were thought dead come back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.client import Mesh
from mediamesh.wire.errors import FailedPrecondition
from tests.chaos.history import History
from tests.chaos.producers import Producing
from tests.chaos.readers import read
from tests.chaos.waiting import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A producer in a process of its own; see `tests.chaos.producer`."""

    def __init__(self, process: asyncio.subprocess.Process, notes: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._notes = notes

    @property
    def notes(self) -> list[str]:
        """What it noted so far, whole lines only."""
        text = self._notes.read_text() if self._notes.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    async def until(self, *words: str) -> None:
        """Wait until one of its notes has all the words."""

        def noted() -> bool:
            assert self._process.returncode is None, "the producer ended before"
            return any(all(word in line for word in words) for line in self.notes)

        await until(noted)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def wait(self) -> str:
        """Wait until it has ended and return what it said."""
        said, _ = await self._process.communicate()
        return said.decode()


@asynccontextmanager
async def program(folder: Path, door: str, opened, *, name: str, epoch: int = 0):
    """Run a producer as a process of its own."""
    notes = folder / f"{name}-{epoch}.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.producer",
        *(door, opened.stream_id, opened.publish_token, name, str(epoch), str(notes)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process, notes)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def take_over(
    history: History, mesh: Mesh, opened: OpenStreamResponse, *, epoch: int = 0, events: int = 20
) -> int:
    """Publish the rest of a stream as another producer; return its epoch."""
    async with mesh.streams.publish(opened.stream_id, opened.publish_token, producer_id="second") as publisher:
        second = Producing(history, publisher, "second")
        for number in range(events):
            await second.send(f"second {number}")
        await second.end()
        return publisher.epoch


@asynccontextmanager
async def readers(history, mesh, opened, *names):
    """Have readers of a stream, who end with it; two when no name is said."""
    async with asyncio.TaskGroup() as group:
        for name in names or ("one", "two"):
            group.create_task(
                read(
                    history,
                    opened.stream_id,
                    lambda after: mesh.streams.subscribe(opened.stream_id, after_sequence=after),
                    client=name,
                )
            )
        yield


async def test_a_producer_that_is_killed_is_replaced(cluster, history, verify, tmp_path) -> None:
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open()
        async with readers(history, mesh, opened), program(tmp_path, cluster.door, opened, name="first") as first:
            await first.until('"acknowledged"')
            first.send(signal.SIGKILL)
            await first.wait()
            assert await take_over(history, mesh, opened) == 2
        history.load(first.notes)
    verify()


async def test_a_zombie_that_wakes_up_is_fenced(cluster, history, verify, tmp_path) -> None:
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open()
        async with readers(history, mesh, opened), program(tmp_path, cluster.door, opened, name="zombie") as zombie:
            await zombie.until('"acknowledged"')
            zombie.send(signal.SIGSTOP)
            async with mesh.streams.publish(
                opened.stream_id, opened.publish_token, producer_id="second", epoch=7
            ) as publisher:
                second = Producing(history, publisher, "second")
                await second.send("the second is here")
                await publisher.flush()
                zombie.send(signal.SIGCONT)
                said = await zombie.wait()
                for number in range(20):
                    await second.send(f"second {number}")
                await second.end()
                assert publisher.epoch == 7
        history.load(zombie.notes)
    assert "FailedPrecondition" in said
    assert "'epoch': '7'" in said
    verify()


async def test_a_zombie_that_is_started_again_is_fenced(cluster, history, verify, tmp_path) -> None:
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open()
        async with readers(history, mesh, opened):
            async with program(tmp_path, cluster.door, opened, name="zombie") as zombie:
                await zombie.until('"acknowledged"')
                zombie.send(signal.SIGKILL)
                await zombie.wait()
            async with mesh.streams.publish(opened.stream_id, opened.publish_token, producer_id="second") as publisher:
                assert publisher.epoch == 2
                async with program(tmp_path, cluster.door, opened, name="zombie", epoch=1) as again:
                    assert "FailedPrecondition" in await again.wait()
                second = Producing(history, publisher, "second")
                await second.send("still here")
                await second.end()
        history.load([*zombie.notes, *again.notes])
    verify()


async def test_a_producer_that_comes_back_with_its_epoch_goes_on(cluster, history, verify, tmp_path) -> None:
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open()
        async with readers(history, mesh, opened):
            async with program(tmp_path, cluster.door, opened, name="same") as first:
                await first.until('"acknowledged"')
                first.send(signal.SIGKILL)
                await first.wait()
            history.load(first.notes)
            async with mesh.streams.publish(
                opened.stream_id, opened.publish_token, producer_id="same", epoch=1
            ) as publisher:
                # What died unsent it does not know, so what it sends in that place is something else.
                again = Producing(history, publisher, "same, again")
                await again.send("back again")
                await again.end()
    verify()


async def test_what_a_frozen_server_holds_is_fenced_when_it_wakes_up(cluster, history, verify) -> None:
    """The zombie is a server: it hangs with events of the first producer, while another takes over elsewhere."""
    here, there = (f"127.0.0.1:{cluster.ports[name]}" for name in ("streams-0", "streams-1"))
    async with Mesh(here) as frozen, Mesh(there) as other:
        opened = await other.streams.open()

        async def be_fenced() -> FailedPrecondition:
            with pytest.raises(FailedPrecondition) as raised:
                async with frozen.streams.publish(opened.stream_id, opened.publish_token) as publisher:
                    first = Producing(history, publisher, "first")
                    await first.start()
                    while True:
                        await first.send(f"first after {publisher.last_sequence}")
                        await asyncio.sleep(0.002)
            return raised.value

        async with (
            readers(history, frozen, opened, "frozen"),
            readers(history, other, opened, "other"),
            asyncio.TaskGroup() as group,
        ):
            fenced = group.create_task(be_fenced())
            await until(lambda: bool(history.of("acknowledged")))
            freezing = group.create_task(cluster.replicas[0].freeze(3))
            await take_over(history, other, opened)
            await freezing
        assert fenced.result().metadata["stream_id"] == opened.stream_id
    verify()


async def test_a_stream_that_ended_takes_nobody(cluster, history, verify) -> None:
    async with Mesh(cluster.door) as mesh:
        opened = await mesh.streams.open()
        async with readers(history, mesh, opened):
            await take_over(history, mesh, opened, events=3)
        with pytest.raises(FailedPrecondition) as raised:
            await take_over(History(), mesh, opened, events=1)
    assert raised.value.metadata["stream_id"] == opened.stream_id
    assert raised.value.metadata["last_sequence"] == "4"
    verify()
