"""What a producer has sent and the streams servers have not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent

__all__ = ["Inbox"]

_MOST_EVENTS = 1024
_MOST_BYTES = 1024 * 1024


class Inbox:
    """A queue from one task to another, bounded in events and bytes; one event always fits.

    A socket whose inbox is full is read no further, and so answers no ping: there is room for what a producer sends
    before it hears that the policy of its stream holds it.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[PublishEvent, int]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._has_room = asyncio.Event()
        self._has_events = asyncio.Event()

    async def put(self, event: PublishEvent) -> None:
        """Add an event; wait while there is no room."""
        size = event.ByteSize()
        while self._events and (len(self._events) >= _MOST_EVENTS or self._bytes + size > _MOST_BYTES):
            self._has_room.clear()
            await self._has_room.wait()
        self._events.append((event, size))
        self._bytes += size
        self._has_events.set()

    async def get(self) -> PublishEvent | None:
        """Return the next event; None when none follows."""
        while not self._events:
            if self._is_closed:
                return None
            self._has_events.clear()
            await self._has_events.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        self._has_room.set()
        return event

    def close(self) -> None:
        """Let no event follow those that are in."""
        self._is_closed = True
        self._has_events.set()

    def abandon(self) -> None:
        """Let no event follow, those that are in among them."""
        self._events.clear()
        self.close()
