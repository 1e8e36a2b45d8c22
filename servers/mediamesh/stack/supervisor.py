"""Keeps programs running: starts them in order, restarts what crashes, stops all in reverse."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mediamesh.stack.ports import holder, is_free
from mediamesh.stack.probes import NotReady
from mediamesh.stack.process import Process, ProgramFailed, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mediamesh.stack.programs import Program

    Say = Callable[[str, str], None]

__all__ = ["Backoff", "PortsTaken", "StackFailed", "Supervisor", "check_ports"]


class PortsTaken(Exception):
    """Ports that programs need are in use; each line names one, its holder and the remedy."""


class StackFailed(Exception):
    """A program kept failing; the text names its log."""


def check_ports(programs: Sequence[Program]) -> None:
    """Raise :class:`PortsTaken` when a program could not listen where it should."""
    taken = [
        f"port {port} for {program.name} is in use by {holder(port)}; stop that, or set {variable}"
        for program in programs
        for variable, port in program.ports.items()
        if not is_free(port)
    ]
    if taken:
        raise PortsTaken("\n".join(taken))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How restarts are spaced, in seconds.

    Attributes:
        first: Pause after the first failure; every next one is twice as long.
        longest: Longest pause.
        stable: A program that ran this long has its failures forgiven.
        max_failures: With this many in a row everything stops.
    """

    first: float = 0.2
    longest: float = 10.0
    stable: float = 60.0
    max_failures: int = 5

    def pause(self, failures: int) -> float:
        """Return the pause after a number of failures in a row."""
        return min(self.longest, self.first * 2.0 ** (failures - 1))


@dataclass(slots=True)
class _Kept:
    """A program and how it does."""

    program: Program
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: Process | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        programs: In the order in which they are thought to start; they stop in reverse.
        logs: Folder of ``NAME.log``.
        say: Takes the name of a program, or ``up``, and a line for the console.
        backoff: How restarts are spaced.
    """

    def __init__(self, programs: Sequence[Program], logs: Path, say: Say, backoff: Backoff | None = None) -> None:
        self._kept = {program.name: _Kept(program) for program in programs}
        self._logs = logs
        self._say = say
        self._backoff = backoff or Backoff()
        self._stop = asyncio.Event()
        self._failure = ""

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run everything until :meth:`stop`; ``on_ready`` is called once when all programs have answered.

        Raises:
            StackFailed: a program kept failing; everything is stopped.
        """
        async with asyncio.TaskGroup() as tasks:
            for kept in self._kept.values():
                kept.task = tasks.create_task(self._keep(kept))
            announcement = tasks.create_task(self._announce(on_ready))
            try:
                await self._stop.wait()
            finally:
                self._stop.set()
                announcement.cancel()
                await self._stop_all()
        if self._failure:
            raise StackFailed(self._failure)

    def stop(self) -> None:
        """Stop everything in order; a second time, kill it."""
        if self._stop.is_set():
            for kept in self._kept.values():
                if kept.process is not None:
                    kept.process.kill()
                if kept.task is not None:
                    kept.task.cancel()  # who waits for a program to end waits no longer
        self._stop.set()

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        for kept in self._kept.values():
            await kept.ready.wait()
        on_ready()

    async def _keep(self, kept: _Kept) -> None:
        """Run one program again and again."""
        for name in kept.program.needs:
            await self._kept[name].ready.wait()
        failures = 0
        while not self._stop.is_set():
            begin = time.monotonic()
            problem = await self._run_once(kept)
            if self._stop.is_set():
                return
            failures = 1 if time.monotonic() - begin >= self._backoff.stable else failures + 1
            if failures >= self._backoff.max_failures:
                self._failure = f"{kept.program.name} failed {failures} times in a row; the last time: {problem}"
                self._stop.set()
                return
            pause = self._backoff.pause(failures)
            self._say("up", f"{problem}; starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def _run_once(self, kept: _Kept) -> str:
        """Run one program until it ends, and return what there is to say about that."""
        program = kept.program
        log = self._logs / f"{program.name}.log"
        begin = time.monotonic()
        try:
            async with running(program, log, echo=None if program.is_quiet else self._echo(program.name)) as process:
                kept.process = process
                kept.ready.set()
                self._say("up", f"{program.name} is ready after {time.monotonic() - begin:.1f} s, pid {process.pid}")
                code = await process.wait()
        except ProgramFailed as error:
            return str(error)
        finally:
            kept.process = None
        return f"{program.name} ended with {code}; see {log}"

    def _echo(self, name: str) -> Callable[[str], None]:
        return lambda line: self._say(name, line)

    async def _stop_all(self) -> None:
        for kept in reversed(self._kept.values()):
            if kept.process is not None and kept.program.before_stop is not None:
                # A door that is gone, or that a second Ctrl-C takes away, cannot be closed softly.
                with suppress(OSError, NotReady):
                    await kept.program.before_stop()
            if kept.task is not None and not kept.task.done():
                kept.task.cancel()
                await asyncio.wait([kept.task])
                self._say("up", f"{kept.program.name} has stopped")
