"""Bounds on time that hold at the pace of the machine: while it stands still, nothing counts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

__all__ = ["within"]

_TICK_SECONDS = 0.01


@asynccontextmanager
async def within(seconds):
    """Fail with TimeoutError where the block takes longer; a tick of the loop that comes late counts as one."""
    async with asyncio.timeout(None) as limit:
        ticking = asyncio.ensure_future(_tick(seconds, limit))
        try:
            yield
        finally:
            ticking.cancel()


async def _tick(seconds, limit) -> None:
    for _ in range(round(seconds / _TICK_SECONDS)):
        await asyncio.sleep(_TICK_SECONDS)
    limit.reschedule(asyncio.get_running_loop().time())
