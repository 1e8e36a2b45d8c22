"""Work that must not be cut off in the middle."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["to_the_end"]

T = TypeVar("T")


async def to_the_end(work: Awaitable[T], left: asyncio.Event | threading.Event | None = None) -> T:
    """Do the work; a cancellation meanwhile, or several, takes effect when it is done, and not before.

    ``left`` is set when the caller is cancelled, so that the work can turn back where it still may.
    """
    # No TaskGroup, as that would cancel the task; it is awaited here, whatever happens.
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if left is not None:
            left.set()
        while not task.done():
            with suppress(asyncio.CancelledError):  # a second one, say of a deadline: this one is raised anyway
                await asyncio.wait([task])
        raise
