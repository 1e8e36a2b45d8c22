"""One deadline over all that a request does."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.wire.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["deadline", "left"]


@asynccontextmanager
async def deadline(seconds: float | None, model: str) -> AsyncGenerator[float | None]:
    """End the block when the seconds pass; yield the time at which that is, by the monotonic clock.

    Raises:
        DeadlineExceeded: they passed.
    """
    try:
        async with asyncio.timeout(seconds):
            yield None if seconds is None else time.monotonic() + seconds
    except TimeoutError:
        raise DeadlineExceeded(f"Model {model} did not answer within {seconds:g} s.", model=model) from None


def left(ends: float | None) -> float | None:
    """Return the seconds until a time; None for no limit."""
    return None if ends is None else max(0.0, ends - time.monotonic())
