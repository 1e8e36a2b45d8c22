"""Runs the whole mesh in the foreground, with what it says on the console."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.text import Text

from mediamesh.kit.settings import SettingsError
from mediamesh.stack.envoy import local_address
from mediamesh.stack.folder import Folder, FolderInUse
from mediamesh.stack.mesh import programs
from mediamesh.stack.models import model_repository
from mediamesh.stack.programs import MissingProgram
from mediamesh.stack.settings import UpSettings
from mediamesh.stack.supervisor import Backoff, PortsTaken, StackFailed, Supervisor, check_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mediamesh.stack.programs import Program

__all__ = ["run_mesh", "supervise"]

_COLOURS = ("cyan", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_blue")
_OPEN_FILES = 65_536


def run_mesh(**overrides: object) -> int:
    """Run the mesh until Ctrl-C or SIGTERM and return the exit status.

    0 when it was stopped, 1 when a part kept failing, 2 when it cannot start as things are set.

    Args:
        overrides: Fields of :class:`UpSettings` that win over variables and file.
    """
    try:
        settings = UpSettings.load(**overrides)
        folder = Folder(settings.data)
        with folder.claimed():
            _run(settings, folder)
    except (FolderInUse, MissingProgram, OSError, PortsTaken, SettingsError) as error:
        _complain(f"mediamesh cannot start:\n{error}")
        return 2
    except StackFailed as error:
        _complain(f"mediamesh stopped: {error}")
        return 1
    return 0


def _run(settings: UpSettings, folder: Folder) -> None:
    # Seconds count from the birth of this process: imports are part of what a user waits for.
    begin = time.monotonic() - (time.time() - psutil.Process().create_time())
    models = model_repository(settings, folder.of("models"), _complain)
    parts = programs(settings, folder, models=models)
    check_ports(parts)
    _allow_connections()
    say = _say(parts, begin)
    say("up", f"starting {len(parts)} parts; their logs are in {folder.logs}")

    def on_ready() -> None:
        address = f"http://{local_address(settings.host)}:{settings.port}"
        say("up", f"mediamesh is ready at {address} after {time.monotonic() - begin:.1f} s; Ctrl-C stops it")

    supervisor = Supervisor(parts, folder.logs, say, Backoff(max_failures=settings.max_failures))
    asyncio.run(supervise(supervisor, on_ready, say))


def _allow_connections() -> None:
    """Let this process, and so all parts, have as many connections as it may; shells often allow 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def supervise(supervisor: Supervisor, on_ready: Callable[[], None], say: Callable[[str, str], None]) -> None:
    """Run until a signal: the first one stops in order, the second one kills.

    Raises:
        StackFailed: a program kept failing.
    """

    def stop() -> None:
        say("up", "stopping; once more kills")
        supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await supervisor.run(on_ready)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style="red"))


def _say(parts: Sequence[Program], begin: float) -> Callable[[str, str], None]:
    """Return what prints a line with seconds since the start and the name of who says it."""
    console = Console(highlight=False, soft_wrap=True)
    styles = {part.name: _COLOURS[index % len(_COLOURS)] for index, part in enumerate(parts)} | {"up": "bold green"}
    width = max(map(len, styles))

    def say(name: str, line: str) -> None:
        prefix = Text(f"{time.monotonic() - begin:7.2f} {name:<{width}} ", style=styles[name])
        console.print(prefix + Text.from_ansi(line))

    return say
