"""Work that takes seconds, away from the event loop: loading a model."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_a_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_a_thread(name: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run something in a thread of its own, which ends with it; when the caller leaves, its result is dropped.

    The pool of ``asyncio.to_thread`` is not for this: a build of many minutes would hold up the end of the process,
    and a thread whose priority was lowered for a model would stay in the pool with it.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # None only beside an error, or where T is None

    def run() -> None:
        try:
            outcome = (work(*args, **kwargs), None)
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            outcome = (None, error)  # type: ignore[assignment]
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name=f"load {name}", daemon=True).start()
    return await result
