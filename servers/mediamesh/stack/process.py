"""Runs one program for as long as a block lasts; nothing of it outlives the block, or this process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from mediamesh.stack.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from mediamesh.stack.programs import Program

__all__ = ["Process", "ProgramFailed", "running", "tether"]

_PROBE_PERIOD_SECONDS = 0.05
_PROBE_TIMEOUT_SECONDS = 2.0


class ProgramFailed(Exception):
    """A program ended before it was ready, or was not ready in time; the text names its log."""


class Process(asyncio.SubprocessProtocol):
    """A program that was started."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._exited = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - what subprocess_exec makes
        self._transport = transport
        self.pid = transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """See asyncio."""
        self._log.write(data)

    def process_exited(self) -> None:
        """See asyncio."""
        self._exited.set_result(None)

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._transport.get_returncode() if self._transport else None

    async def wait(self) -> int:
        """Wait until it has ended and return its exit status."""
        await asyncio.shield(self._exited)
        return self.returncode or 0

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM and wait; after the seconds, or when cancelled, kill its whole group."""
        try:
            if self.returncode is None:
                os.kill(self.pid, signal.SIGTERM)
            async with asyncio.timeout(seconds):
                await self.wait()
        except (TimeoutError, ProcessLookupError):
            pass
        finally:
            self.kill()
            await self.wait()
            if self._transport:
                self._transport.close()

    def kill(self) -> None:
        """Kill it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@asynccontextmanager
async def running(program: Program, log: Path, *, echo: Callable[[str], None] | None = None) -> AsyncGenerator[Process]:
    """Start a program, yield it when it is ready, and stop it.

    Args:
        program: What to run.
        log: File that takes what it says, after what is there.
        echo: Takes what it says too, line by line.

    Raises:
        ProgramFailed: it does not become ready.
    """
    with Log(log, echo=echo) as sink:
        process = await _started(program, sink)
        try:
            await _until_ready(program, process, log)
            yield process
        finally:
            await process.stop(program.stop_seconds)


async def _started(program: Program, log: Log) -> Process:
    """Start a program in a process group of its own.

    There is no ``preexec_fn``: with one Python forks, and a fork of a process in which gRPC runs
    aborts or hangs in gRPC's fork handlers; without one it uses vfork.
    """
    _, process = await asyncio.get_running_loop().subprocess_exec(
        lambda: Process(log),
        *tether(),
        *map(str, program.argv),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **program.env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    return process


async def _until_ready(program: Program, process: Process, log: Path) -> None:
    deadline = time.monotonic() + program.ready_seconds
    problem = ""
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise ProgramFailed(f"{program.name} exited with {process.returncode} before it was ready; see {log}")
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                return await program.probe()
        except Exception as error:  # noqa: BLE001 - whatever a probe meets means: not yet
            problem = str(error) or type(error).__name__
        await asyncio.sleep(_PROBE_PERIOD_SECONDS)
    raise ProgramFailed(f"{program.name} was not ready after {program.ready_seconds:g} s ({problem}); see {log}")


def tether() -> Sequence[str]:
    """Return the command that makes a program die with this process, even when this one is killed.

    Linux takes the thread that starts the program for the process.
    """
    if setpriv := shutil.which("setpriv"):
        return (setpriv, "--pdeathsig", "KILL", "--")
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG is 1; the signal is kept over exec.
        tie = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
        return (sys.executable, "-c", tie)
    return ()
