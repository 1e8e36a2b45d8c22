from __future__ import annotations

import asyncio
import io
import random

import pytest

from mediamesh.client.ranged_file import ranged_file
from mediamesh.wire.errors import StreamInterrupted, Unavailable

DATA = random.Random(7).randbytes(20_000_003)
MIB = 1 << 20


class Source:
    """An object to download ranges of."""

    def __init__(self, data=DATA) -> None:
        self.data, self.ranges, self.at_once, self.most = data, list[tuple[int, int]](), 0, 0
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.failures: list[Exception] = []

    async def __call__(self, offset, limit):
        self.ranges.append((offset, limit))
        self.asked.set()
        if self.failures:
            raise self.failures.pop(0)
        await self.open.wait()
        return self.data[offset : offset + limit]


async def test_a_thread_reads_and_seeks_as_in_any_file() -> None:
    def work(file):
        chance, same = random.Random(1), io.BytesIO(DATA)
        assert file.read(5) == DATA[:5]
        for _ in range(200):
            offset, size = chance.randrange(len(DATA) + 10), chance.randrange(3 * MIB)
            assert file.seek(offset) == same.seek(offset) == file.tell()
            assert file.read(size) == same.read(size)
        assert file.seek(-3, io.SEEK_END) == len(DATA) - 3
        assert file.seek(1, io.SEEK_CUR) == len(DATA) - 2
        assert file.read() == DATA[-2:]
        assert file.read(10) == b""
        with pytest.raises(ValueError, match="negative seek"):
            file.seek(-1)
        file.seek(0)
        assert file.read() == DATA

    async with ranged_file(Source(), len(DATA)) as file:
        await asyncio.to_thread(work, file)


async def test_only_what_is_read_is_downloaded_and_nothing_twice_in_a_row() -> None:
    source = Source()

    def work(file):
        for _ in range(3000):
            file.read(512)

    async with ranged_file(source, len(DATA)) as file:
        await asyncio.to_thread(work, file)
    assert source.ranges == [(0, MIB), (MIB, MIB), (2 * MIB, MIB)]


async def test_few_blocks_are_held() -> None:
    source = Source()

    def work(file):
        file.read()
        return len(file._blocks._tasks)

    async with ranged_file(source, len(DATA)) as file:
        assert await asyncio.to_thread(work, file) <= 8
    assert len(source.ranges) == 20


async def test_a_read_that_waits_when_the_block_ends_fails_and_lets_its_thread_go() -> None:
    source = Source()
    source.open.clear()
    async with ranged_file(source, len(DATA)) as file:
        reading = asyncio.ensure_future(asyncio.to_thread(file.read, 10))
        await source.asked.wait()
    with pytest.raises(ValueError, match="closed file"):
        await reading
    for work in (file.read, lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed file"):
            await asyncio.to_thread(work)


async def test_a_download_that_fails_fails_the_read_and_the_next_read_tries_again() -> None:
    source = Source(DATA[:MIB])
    source.failures = [Unavailable("The store is away.")]
    async with ranged_file(source, MIB) as file:
        with pytest.raises(Unavailable, match="The store is away"):
            await asyncio.to_thread(file.read, 10)
        assert await asyncio.to_thread(file.read, 10) == DATA[:10]


async def test_an_object_that_is_shorter_than_its_reference_says_is_told() -> None:
    async with ranged_file(Source(DATA[:100]), 200) as file:
        with pytest.raises(StreamInterrupted, match="100 bytes came from offset 0 on, and 200 should have"):
            await asyncio.to_thread(file.read, 10)


async def test_the_event_loop_is_told_not_to_wait_for_itself() -> None:
    async with ranged_file(Source(), len(DATA)) as file:
        with pytest.raises(RuntimeError, match="read in a thread"):
            file.read(1)


async def test_an_empty_file_is_empty() -> None:
    async with ranged_file(Source(b""), 0) as file:
        assert await asyncio.to_thread(file.read) == b""
