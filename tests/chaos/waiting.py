"""Waits until something holds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

__all__ = ["until"]

_PERIOD_SECONDS = 0.05


async def until(holds: Callable[[], bool | Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until a function returns true, asked again and again; it may be a coroutine function.

    Raises:
        TimeoutError: it did not in time.
    """
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_PERIOD_SECONDS)
