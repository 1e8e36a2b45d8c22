"""How commands reach the mesh, and how they end when it says no."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from mediamesh.wire.errors import Cancelled, MeshError, Unavailable

__all__ = ["Server", "complete", "errors_as_sentences", "target"]

Server = Annotated[
    str,
    typer.Option(
        envvar="MEDIAMESH_SERVER",
        help="The mesh's door, host:port; 127.0.0.1 and MEDIAMESH_PORT (8080) when empty.",
    ),
]
T = TypeVar("T")
_STDERR = Console(stderr=True)


def target(server: str, port: int) -> str:
    """Return ``host:port`` of the door."""
    return server.removeprefix("http://").rstrip("/") or f"127.0.0.1:{port}"


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; what the mesh refuses ends the program with a sentence."""
    with errors_as_sentences():
        return asyncio.run(_woken_by_signals(work))


async def _woken_by_signals(work: Coroutine[Any, Any, T]) -> T:
    """Do the work in a loop that turns when a signal comes.

    The handler of `asyncio.run` is called when the main thread goes on. A Ctrl-C that comes just as the loop begins to
    wait does not wake it, and was heard of with the next event, which may never come.
    """
    if sys.platform == "win32":
        return await work
    loop, (woken, waker) = asyncio.get_running_loop(), socket.socketpair()
    with woken, waker:
        for end in (woken, waker):
            end.settimeout(0)
        loop.add_reader(woken, woken.recv, 4096)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            return await work
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(woken)


@contextmanager
def errors_as_sentences() -> Generator[None]:
    """Print an error of the mesh for people and exit: 1, or 130 after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        _STDERR.print("Cancelled.")
        raise typer.Exit(130) from None
    except MeshError as error:
        _STDERR.print(sentence(error), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(130 if isinstance(error, Cancelled) else 1) from None


def sentence(error: MeshError) -> str:
    """Return what went wrong, with its number, and what can be done about it."""
    number = f" ({error.number})" if error.number else ""
    remedy = "\nIs the mesh up? `mediamesh up` starts it." if isinstance(error, Unavailable) else ""
    lines = [f"  {field}: {text}" for field, text in error.violations if text not in error.text]
    return "\n".join([f"Error{number}: {error.text}{remedy}", *lines])
