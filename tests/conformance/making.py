"""Streams for the suite to read, and what reading them gave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import StreamLimits
from mediamesh.client import StreamClient
from mediamesh.client.streams import is_last

__all__ = ["Made", "make", "read", "text", "until"]


@dataclass(frozen=True)
class Made:
    """A stream."""

    stream_id: str
    token: str


async def make(
    streams: StreamClient, chunks: int, *, is_ended: bool = True, limits: StreamLimits | None = None
) -> Made:
    """Open a stream, and publish its start, so many chunks and, when it is ended, its end."""
    opened = await streams.open(limits=limits)
    made = Made(opened.stream_id, opened.publish_token)
    async with streams.publish(made.stream_id, made.token) as publisher:
        await publisher.start()
        for number in range(1, chunks + 1):
            await publisher.send(text(str(number)))
        if is_ended:
            await publisher.end()
    return made


def text(words: str) -> Chunk:
    return Chunk(content=TextContent(text=words))


async def read(transport, stream_id: str, *, most: int | None = None, **options) -> list[Any]:
    """Return the events and gaps that a reader gets until the end of the stream, or so many."""
    found: list[Any] = []
    async with asyncio.timeout(60), aclosing(transport.subscribe(stream_id, **options)) as items:
        async for item in items:
            found.append(item)
            if len(found) == most:
                return found
    assert is_last(found[-1]) if found else True
    return found


async def until(holds) -> None:
    """Wait until something holds that has no event of its own."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in another task, without telling
            await asyncio.sleep(0.02)
