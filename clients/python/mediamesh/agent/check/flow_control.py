"""Checks of backpressure: what an agent may pile up is bounded, on the way in and on the way out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from mediamesh.agent.check.findings import Advice, Broken, Unclear
from mediamesh.agent.check.material import chunk
from mediamesh.agent.check.probe import POLL_SECONDS
from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, RunRequest, RunResponse

if TYPE_CHECKING:
    from mediamesh.agent.check.probe import RunCall
    from mediamesh.agent.check.subject import Subject

__all__ = ["FLOW_CONTROL"]

# What the buffers of gRPC on both sides and a few frames of the agent's own may hold.
_HELD_BYTES = 24 * 1024 * 1024
_OFFERED_BYTES = 64 * 1024 * 1024
_PAUSE_SECONDS, _STUCK_SECONDS = 2.0, 1.0
_CHUNK_BYTES = 32 * 1024
_PAYING_RATIO = 0.5


async def unread_outputs(subject: Subject) -> str:
    """An agent whose caller does not read stops making chunks, and goes on when it reads."""
    if not subject.gives_streams:
        raise Unclear("The agent gives no streams.")
    if subject.outcome.size < _HELD_BYTES:
        raise Unclear(f"A run on these inputs gives {subject.outcome.size} bytes, too few to be held back.")
    async with subject.probe.call() as call:
        for frame in subject.sample.requests:
            await call.write(frame)
        await call.done_writing()
        first, begin = await _first_chunk(call), time.monotonic()
        # An agent that is not held back has made all of it by then, on a machine that is slow or stands still, too.
        for _ in range(round(max(_PAUSE_SECONDS, 2 * subject.outcome.seconds) / POLL_SECONDS)):
            await asyncio.sleep(POLL_SECONDS)
        held = await _made_before(call, first + 0.9 * (time.monotonic() - begin))
    if held > _HELD_BYTES:
        raise Broken(f"It made {held >> 20} MiB of chunks or more while nobody read.")
    return f"made {held / 1e6:.1f} MB while nobody read"


async def unread_answers(subject: Subject) -> str:
    """An agent that gives about as much as it takes stops taking while its caller does not read."""
    subject.needs_streams()
    taken_before = sum(frame.ByteSize() for frame in subject.sample.frames)
    ratio = sum(frame.ByteSize() for frame in subject.outcome.frames if frame.HasField("chunk")) / max(1, taken_before)
    if ratio < _PAYING_RATIO:
        raise Unclear("The agent gives little for what it takes.")
    taken = await _taken(subject)
    if taken * min(ratio, 1.0) > _HELD_BYTES:
        raise Broken(f"It took {taken >> 20} MiB of chunks while nobody read what it gave for them.")
    return f"took {taken / 1e6:.1f} MB while nobody read"


FLOW_CONTROL = (unread_outputs, unread_answers)
"""The checks of backpressure, in order."""


async def _first_chunk(call: RunCall) -> float:
    while isinstance(frame := await call.read(), RunResponse):
        if frame.HasField("chunk"):
            return _made_at(frame)
    raise Unclear("A second run gave no chunk.")


async def _made_before(call: RunCall, until: float) -> int:
    """Return the bytes of the chunks that were made before a time, by the agent's clock."""
    size = 0
    while isinstance(frame := await call.read(), RunResponse) and size <= _HELD_BYTES:
        if frame.HasField("chunk"):
            if _made_at(frame) > until:
                break
            size += frame.ByteSize()
    return size


def _made_at(frame: RunResponse) -> float:
    stamp = frame.chunk.chunk.timestamp
    if not stamp.seconds:
        raise Advice("Chunks have no timestamp: nobody sees when they were made.")
    return stamp.seconds + stamp.nanos / 1e9


async def _taken(subject: Subject) -> int:
    """Return how many bytes of chunks the agent takes from a caller that does not read."""
    pin, *_ = subject.streams
    taken = 0
    async with subject.probe.call() as call:
        await call.write(RunRequest(open=subject.opening()))
        for number in range(1, _OFFERED_BYTES // _CHUNK_BYTES + 1):
            frame = RunRequest(chunk=PinChunk(pin=pin.name, chunk=chunk(pin, number, size=_CHUNK_BYTES)))
            try:
                if not await _is_written(call, frame):
                    break
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                raise Unclear("The agent ended the run in the midst of large chunks.") from None
            taken += _CHUNK_BYTES
    return taken


async def _is_written(call: RunCall, frame: RunRequest) -> bool:
    """Write a frame; return whether there was room for it in time, which stands still as the machine does."""
    writing = asyncio.ensure_future(call.write(frame))
    try:
        for _ in range(round(_STUCK_SECONDS / POLL_SECONDS)):
            await asyncio.wait({writing}, timeout=POLL_SECONDS)
            if writing.done():
                await writing
                return True
    finally:
        writing.cancel()
    return False
