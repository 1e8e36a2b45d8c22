"""Checks of stream inputs: order, ends, and callers that break off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.agent.check.findings import Broken, Unclear
from mediamesh.agent.check.material import chunk
from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, PinEnd, RunRequest

if TYPE_CHECKING:
    from mediamesh.agent.check.subject import Subject
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["STREAMING"]


async def input_sequences(subject: Subject) -> str:
    """A gap, or a number twice, among the chunks of an input is INVALID_ARGUMENT."""
    await _waits_for_end(subject)
    for pin in subject.streams:
        for numbers, what in (((1, 3), "a gap"), ((1, 1), "a number twice"), ((2, 3), "a first chunk that is not 1")):
            frames = [_chunk(pin, number) for number in numbers]
            await subject.refuses(_with(subject, pin, *frames, _end(pin)), f"{what} on {pin.name}")
    return "INVALID_ARGUMENT"


async def chunks_in_place(subject: Subject) -> str:
    """A chunk on a pin that was not opened, or after the pin's end, is INVALID_ARGUMENT; so is a second `open`."""
    await _waits_for_end(subject)
    pin, *others = subject.streams
    opening, ends = RunRequest(open=subject.opening()), list(map(_end, subject.streams))
    stray = RunRequest(chunk=PinChunk(pin="no_such_pin", chunk=chunk(pin, 1)))
    await subject.refuses([opening, stray, *ends], "a chunk on a pin that was not opened")
    await subject.refuses([opening, opening, *ends], "a second open")
    if others:  # with a single stream an agent may be done before the chunk comes
        await subject.refuses(
            [opening, _end(pin), _chunk(pin, 1)], "a chunk after the end of its pin", half_close=False
        )
    return "INVALID_ARGUMENT"


async def broken_off(subject: Subject) -> str:
    """A caller that half-closes before the end of a stream is told INVALID_ARGUMENT, and is not kept waiting."""
    await _waits_for_end(subject)
    pin, *_ = subject.streams
    frames = [RunRequest(open=subject.opening()), _chunk(pin, 1)]
    await subject.refuses(frames, f"a stream on {pin.name} that broke off")
    await subject.refuses(frames[:1], f"no chunk and no end on {pin.name}")
    return "INVALID_ARGUMENT"


async def empty_streams(subject: Subject) -> str:
    """A run whose streams end without a chunk ends, with a result or an error of the contract."""
    subject.needs_streams()
    frames = [RunRequest(open=subject.opening()), *map(_end, subject.streams)]
    outcome = await subject.probe.run(frames, what="empty streams", half_close=False)
    if outcome.status is None:
        raise Broken(f"A run whose streams end without a chunk {outcome.describe()}.")
    return outcome.describe() if outcome.succeeded else str(outcome.code and outcome.code.name)


STREAMING = (input_sequences, chunks_in_place, broken_off, empty_streams)
"""The checks of stream inputs, in order."""


async def _waits_for_end(subject: Subject) -> None:
    """Leave a check that needs an agent that reads its streams to their ends.

    Raises:
        Unclear: it finishes before; what comes after is nothing to it.
    """
    subject.needs_streams()
    opened = await subject.holds_open()
    if not opened:
        raise Unclear("The agent finishes before its streams have ended.")


def _with(subject: Subject, pin: Pin, *frames: RunRequest) -> list[RunRequest]:
    """Return the frames of the sample with others for one pin."""
    rest = [frame for frame in subject.sample.frames if pin.name not in {frame.chunk.pin, frame.end.pin}]
    return [RunRequest(open=subject.opening()), *frames, *rest]


def _chunk(pin: Pin, number: int) -> RunRequest:
    return RunRequest(chunk=PinChunk(pin=pin.name, chunk=chunk(pin, number)))


def _end(pin: Pin) -> RunRequest:
    return RunRequest(end=PinEnd(pin=pin.name))
