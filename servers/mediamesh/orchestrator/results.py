"""Where results of agents are kept for the same inputs: Valkey, which all replicas share, or memory."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator
from time import monotonic
from typing import Any, Self

from redis import asyncio as redis
from redis.exceptions import RedisError

from mediamesh.wire.errors import Unavailable

__all__ = ["MemoryResults", "ValkeyResults"]

_TIMEOUT_SECONDS = 2.0
_CONNECTIONS = 8


class ValkeyResults:
    """Results in Valkey, a string each."""

    def __init__(self, url: str) -> None:
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS, protocol=2
        )
        self._commands: Any = redis.Redis.from_pool(pool)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncGenerator[Self]:
        """Yield the results; whether Valkey is there shows at the first use."""
        results = cls(url)
        try:
            yield results
        finally:
            await results._commands.aclose()

    async def get(self, key: str) -> bytes | None:
        """See `Results.get`."""
        with _reached():
            found: bytes | None = await self._commands.get(key)
        return found

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        """See `Results.put`."""
        with _reached():
            await self._commands.set(key, data, px=max(1, round(seconds * 1000)))


class MemoryResults:
    """Results in memory, those that were used last.

    Args:
        max_bytes: How much they may take together.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        """See `Results.get`."""
        data, expires = self._kept.get(key, (None, 0.0))
        if expires <= monotonic():
            return None
        self._kept.move_to_end(key)
        return data

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        """See `Results.put`."""
        self._bytes += len(data) - len(self._kept.pop(key, (b"", 0.0))[0])
        self._kept[key] = data, monotonic() + seconds
        while self._bytes > self._max_bytes:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._bytes -= len(oldest)


@contextlib.contextmanager
def _reached() -> Generator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(f"The results in Valkey cannot be reached: {error}") from error
