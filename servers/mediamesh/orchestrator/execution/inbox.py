"""What comes to a node: single values, once each, and chunks in bounded pipes."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.stream.v1.chunk_pb2 import Chunk
from mediamesh.wire.errors import InvalidFlow, MeshError, Overloaded, StreamInterrupted

__all__ = ["Bounds", "Inbox", "Pipe", "Skipped"]


class Skipped(Exception):
    """A node cannot run, as something that it needs failed.

    Attributes:
        cause: The node that failed, or whose output a condition keeps back.
        by_condition: Whether it is a condition, so that nothing failed.
    """

    def __init__(self, cause: str, *, by_condition: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.by_condition = by_condition


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait on a stream pin."""

    chunks: int
    bytes: int


class Pipe:
    """Chunks on their way to one stream pin, from one producer or several; who puts waits while it is full.

    Args:
        producers: How many must end before it ends.
        bounds: How much may wait.
        overflow: Called in place of waiting while nobody reads yet; None to wait always.
    """

    def __init__(self, producers: int, bounds: Bounds, overflow: Callable[[], None] | None) -> None:
        self._producers = producers
        self._bounds = bounds
        self._overflow = overflow
        self._waiting: deque[Chunk] = deque()
        self._bytes = 0
        self._broken_by = ""
        self._left = False
        self._reading = False
        self._used = False
        self._merged = 0 if producers > 1 else None
        self._changed = asyncio.Condition()

    @property
    def began(self) -> bool:
        """Whether a reader would not wait."""
        return bool(self._waiting) or self._producers == 0

    @property
    def ended(self) -> bool:
        """Whether every producer has ended."""
        return self._producers == 0

    @property
    def used(self) -> bool:
        """Whether any chunk has come."""
        return self._used

    @property
    def broken_by(self) -> str:
        """The producer that failed; empty when none has."""
        return self._broken_by

    async def put(self, chunk: Chunk) -> None:
        """Add a chunk; waits while the pipe is full."""
        async with self._changed:
            while self._is_full() and not self._left:
                if self._overflow is not None and not self._reading:
                    self._overflow()
                    return
                await self._changed.wait()
            if self._left:
                return
            if self._merged is not None:
                # Chunks of several producers are one stream, and are numbered as one.
                self._merged += 1
                chunk = _renumbered(chunk, self._merged)
            self._used = True
            self._waiting.append(chunk)
            self._bytes += chunk.ByteSize()
            self._changed.notify_all()

    async def end(self) -> None:
        """One producer has no more chunks."""
        async with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    async def break_off(self, cause: str) -> None:
        """One producer failed."""
        async with self._changed:
            self._broken_by = self._broken_by or cause
            self._changed.notify_all()

    async def leave(self) -> None:
        """Nobody will read any more; what comes is dropped and nobody waits."""
        async with self._changed:
            self._left = True
            self._waiting.clear()
            self._changed.notify_all()

    async def get(self) -> Chunk | None:
        """Return the next chunk; None after the last.

        Raises:
            StreamInterrupted: a producer failed.
        """
        self._reading = True
        async with self._changed:
            while not self.began and not self._broken_by:
                await self._changed.wait()
            if self._waiting:
                chunk = self._waiting.popleft()
                self._bytes -= chunk.ByteSize()
                self._changed.notify_all()
                return chunk
            if self._broken_by:
                raise StreamInterrupted(f"The stream broke off, as the node `{self._broken_by}` failed.")
            return None

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._bounds.chunks or (bool(self._waiting) and self._bytes >= self._bounds.bytes)


def _renumbered(chunk: Chunk, number: int) -> Chunk:
    copy = Chunk()
    copy.CopyFrom(chunk)
    copy.sequence_number = number
    return copy


class Inbox:
    """Everything that comes to one node.

    Args:
        values: Number of edges by pin that takes a single value; of several all but one have conditions that keep it.
        optional: Those of them that the node can do without when their producer gives nothing.
        streams: Number of edges by stream pin.
        hazardous: Stream pins on which waiting for room could stop a value that this node waits for.
        bounds: How much may wait on a stream pin.
    """

    def __init__(
        self,
        *,
        values: Mapping[str, int],
        optional: Collection[str],
        streams: dict[str, int],
        hazardous: Collection[str],
        bounds: Bounds,
    ) -> None:
        self.values: dict[str, Value] = {}
        self._missing = Counter(values)
        self._optional = set(optional)
        self._cause: str | None = None
        self._withheld: str | None = None
        self._error: MeshError | None = None
        self._overflowed: str | None = None
        self._begun = False
        self._changed = asyncio.Event()
        self.pipes = {
            pin: Pipe(producers, bounds, partial(self._overflow, pin) if pin in hazardous else None)
            for pin, producers in streams.items()
        }

    async def ready(self) -> None:
        """Wait until the node can start: all single values are there, and the first chunk of a stream if it takes any.

        Raises:
            Skipped: something that it needs failed, or a condition keeps it back.
            MeshError: what came does not fit.
            Overloaded: more chunks came than may wait, before a value that comes after them.
        """
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            if self._cause is not None:
                raise Skipped(self._cause)
            if self._withheld is not None:
                raise Skipped(self._withheld, by_condition=True)
            if self._overflowed is not None:
                raise Overloaded(
                    f"The pin `{self._overflowed}` got more chunks than may wait for "
                    f"{', '.join(f'`{pin}`' for pin in sorted(self._missing))}, which comes after them."
                )
            if not self._missing and (not self.pipes or any(pipe.began for pipe in self.pipes.values())):
                self._begun = True
                return
            await self._changed.wait()

    def deliver(self, pin: str, value: Value) -> None:
        """A value has come."""
        if pin in self.values:
            self.refuse(
                InvalidFlow(f"Two edges carried a value to `{pin}`, which takes one: their conditions overlap.")
            )
        self.values[pin] = value
        self.settle(pin)

    async def put(self, pin: str, chunk: Chunk) -> None:
        """A chunk has come; waits while its pipe is full."""
        began = self.pipes[pin].began
        await self.pipes[pin].put(chunk)
        if not began:
            self._changed.set()

    async def end(self, pin: str) -> None:
        """A producer of a stream pin has no more chunks."""
        await self.pipes[pin].end()
        self._changed.set()

    def without(self, pin: str, cause: str) -> None:
        """The producer is done and gave nothing for a single value."""
        self.settle(pin, cause)

    async def withhold(self, pin: str, cause: str) -> None:
        """Nothing comes from one producer, as a condition keeps it back."""
        if pin not in self.pipes:
            self.settle(pin, cause, by_condition=True)
            return
        pipe = self.pipes[pin]
        await pipe.end()
        if pipe.ended and not pipe.used and not self._begun:
            # No producer gave anything: for the node it is as if the pin had no edge.
            del self.pipes[pin]
            if pin not in self._optional:
                self._withheld = self._withheld or cause
        self._changed.set()

    def settle(self, pin: str, cause: str = "", *, by_condition: bool = False) -> None:
        """One edge to a single value has carried, or will not; what has no value then was needed or not."""
        self._missing -= Counter([pin])
        if not self._missing[pin] and pin not in self.values and pin not in self._optional:
            if by_condition:
                self._withheld = self._withheld or cause
            else:
                self._cause = self._cause or cause
        self._changed.set()

    def refuse(self, error: MeshError) -> None:
        """What came does not fit: the node cannot run."""
        self._error = self._error or error
        self._changed.set()

    async def lose(self, pin: str, cause: str) -> None:
        """The producer failed; what it gave before counts."""
        if pin in self.pipes:
            await self.pipes[pin].break_off(cause)
            self._cause = self._cause or cause
        elif pin in self._missing:
            self._cause = self._cause or cause
        self._changed.set()

    async def leave(self) -> None:
        """The node takes nothing any more."""
        for pipe in list(self.pipes.values()):
            await pipe.leave()

    def _overflow(self, pin: str) -> None:
        self._overflowed = pin
        self._changed.set()
