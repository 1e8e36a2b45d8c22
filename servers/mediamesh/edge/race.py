"""Runs coroutines until the first of them is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["race"]


async def race(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines side by side; once one is done the others are cancelled and waited for.

    Raises:
        Exception: what the first to be done raised. Not an ExceptionGroup: one of them counts.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if task in done:
            task.result()
