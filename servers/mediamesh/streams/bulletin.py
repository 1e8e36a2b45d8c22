"""News of all streams in memory, for those who watch."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.streams.log.ports import News, StreamStore

__all__ = ["Bulletin"]

_KEPT = 1024
_PAGE = 200


class Bulletin:
    """The newest news; who is further back reads the store.

    Attributes:
        version: How many news there were; a reader that sees it unchanged has nothing to look for.
    """

    def __init__(self, store: StreamStore) -> None:
        self.version = 0
        self._store = store
        self._kept: deque[News] = deque()
        self._numbers: dict[str, int] = {}
        self._changed = asyncio.Event()

    def post(self, news: News) -> None:
        """Add news."""
        if news.position in self._numbers:
            return
        self.version += 1
        self._kept.append(news)
        self._numbers[news.position] = self.version
        if len(self._kept) > _KEPT:
            del self._numbers[self._kept.popleft().position]
        self.notify()

    def notify(self) -> None:
        """Wake all who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, position: str) -> list[News]:
        """Return some news after a position.

        Raises:
            OutOfRange: it is no longer kept, or is none.
        """
        number = self._numbers.get(position)
        if number is None:
            return await self._store.news(position, _PAGE)
        first = self.version - len(self._kept) + 1
        return list(islice(self._kept, number + 1 - first, number + 1 - first + _PAGE))

    async def wait(self, version: int, seconds: float) -> None:
        """Wait until there is more than there was, or so long."""
        if self.version != version:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
