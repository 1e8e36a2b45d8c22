"""A bounded queue of messages between two tasks: whoever is faster waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["Pipe"]

M = TypeVar("M", bound="Message")


class Pipe(Generic[M]):
    """Any number of writers, one reader; bounded in messages and in bytes, and a writer waits while it is full.

    Args:
        messages: Most messages held.
        size_bytes: Most bytes held; a single larger message enters only when the pipe is empty.
    """

    def __init__(self, *, messages: int, size_bytes: int) -> None:
        self._most, self._most_bytes = messages, size_bytes
        self._held: deque[tuple[M, int]] = deque()
        self._bytes = 0
        self._turn = asyncio.Lock()  # first come, first written: a newcomer must not overtake who waits for room
        self._room, self._news = asyncio.Event(), asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed

    async def put(self, message: M) -> None:
        """Write a message, after waiting for room."""
        size = message.ByteSize()
        async with self._turn:
            while self._held and (len(self._held) >= self._most or self._bytes + size > self._most_bytes):
                self._room.clear()
                await self._room.wait()
            self._held.append((message, size))
            self._bytes += size
            self._news.set()

    def close(self, error: BaseException | None = None) -> None:
        """End the pipe; its reader gets what is held, and then the error or the end."""
        if not self._closed:
            self._closed, self._error = True, error
            self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M:
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        message, size = self._held.popleft()
        self._bytes -= size
        self._room.set()
        return message
