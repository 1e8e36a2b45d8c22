"""What a run gives, as frames, checked against the agent's manifest."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import protovalidate

from mediamesh.agent.pins import check_at_agent, to_value
from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, PinEnd, PinMedia, PinValue, RunFinished, RunResponse
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.wire.errors import AgentFailed
from mediamesh.wire.pins import MEDIA_TYPES, type_name

if TYPE_CHECKING:
    from mediamesh.agent.pipe import Pipe
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["Output", "Outputs"]

# By the type of the pin: str, a number, bool, what JSON can say, bytes (binary, and media for the caller to store), a
# MediaValue (media that is stored already), and for long media and streams an async iterable of bytes or chunks.
Output: TypeAlias = (
    "str | float | bool | bytes | MediaValue | Value | Mapping[str, Any] | Sequence[Any] | AsyncIterable[Any] | None"
)
_FRAME_BYTES = 1024 * 1024


class Outputs:
    """The outputs of one run.

    Every method raises AgentFailed, naming the pin, where the agent breaks what its manifest says.
    """

    def __init__(self, manifest: Manifest, pipe: Pipe[RunResponse]) -> None:
        self._manifest, self._pipe = manifest, pipe
        self._pins = {pin.name: pin for pin in manifest.outputs}
        self._given: set[str] = set()
        self._sequences: Counter[str] = Counter()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by stream: who sends, counts

    def pin(self, name: str) -> Pin:
        """Return an output pin."""
        if pin := self._pins.get(name):
            return pin
        raise self.broken(name, f"is not in the manifest, which has {', '.join(self._pins) or 'none'}")

    def streams(self, name: str) -> bool:
        """Return whether an output pin takes chunks."""
        return self.pin(name).type == PinType.PIN_TYPE_STREAM

    def broken(self, name: str, text: str) -> AgentFailed:
        """Return the error for an agent that breaks its manifest at an output."""
        agent = self._manifest.id
        return AgentFailed(f"{agent} broke its manifest: output {name!r} {text}.", agent=agent, pin=name)

    async def send(self, response: RunResponse) -> None:
        """Send a frame as it is."""
        try:
            protovalidate.validate(response)
        except protovalidate.ValidationError as error:
            raise AgentFailed(f"{self._manifest.id} gave a frame that breaks a rule: {_first(error)}") from None
        await self._pipe.put(response)

    async def give(self, name: str, output: Output) -> None:
        """Send the whole of an output."""
        pin = self._begin(name)
        if pin.type == PinType.PIN_TYPE_STREAM:
            if not isinstance(output, AsyncIterable):
                raise self.broken(name, f"takes an async iterable of chunks, got {type(output).__name__}")
            await self._give_stream(pin, output)
        elif pin.type in MEDIA_TYPES and not isinstance(output, MediaValue | Value):
            await self._give_media(pin, output)
        else:
            try:
                await self._give_value(pin, output)
            except BaseException:
                self._given.discard(name)  # nothing was sent, so it may be given yet
                raise

    async def emit(self, name: str, chunk: Chunk | str) -> None:
        """Send the next chunk of a stream."""
        pin = self.pin(name)
        if pin.type != PinType.PIN_TYPE_STREAM:
            raise self.broken(name, f"is {type_name(pin.type)}, no stream")
        frame = RunResponse(chunk=PinChunk(pin=name, chunk=_chunk(chunk)))
        sent = frame.chunk.chunk
        sent.source = sent.source or self._manifest.id
        if not sent.HasField("timestamp"):
            sent.timestamp.GetCurrentTime()
        async with self._turns[name]:
            if name in self._given:
                raise self.broken(name, "has ended")
            sent.sequence_number = self._sequences[name] + 1
            await self.send(frame)
            # Only now: a chunk that breaks a rule, or whose wait for room is given up, takes no number from the next.
            self._sequences[name] += 1

    async def end(self, name: str) -> None:
        """Say that no more chunks come on a stream."""
        async with self._turns[name]:
            self._begin(name)
            await self.send(RunResponse(end=PinEnd(pin=name)))
            self._given.add(name)

    async def finish(self, outputs: Mapping[str, Output]) -> None:
        """Send what is left, streams side by side; then the end of every stream, and of the run."""
        streams = {name for name, output in outputs.items() if isinstance(output, AsyncIterable)}
        for name in outputs.keys() - streams:
            await self.give(name, outputs[name])
        if streams:
            async with asyncio.TaskGroup() as tasks:
                for name in streams:
                    tasks.create_task(self.give(name, outputs[name]))
        for name, pin in self._pins.items():
            if name in self._given:
                continue
            if pin.type == PinType.PIN_TYPE_STREAM:
                await self.end(name)
            elif not pin.optional:
                raise self.broken(name, "is missing")
        await self._pipe.put(RunResponse(finished=RunFinished()))

    def _begin(self, name: str) -> Pin:
        pin = self.pin(name)
        if name in self._given:
            raise self.broken(name, "was given already")
        if pin.type != PinType.PIN_TYPE_STREAM:
            self._given.add(name)
        return pin

    async def _give_value(self, pin: Pin, output: Output) -> None:
        try:
            value = to_value(pin, output)
        except TypeError as error:
            raise self.broken(pin.name, str(error)) from None
        for violation in check_at_agent(pin, value):
            raise self.broken(pin.name, violation.text)
        await self.send(RunResponse(output=PinValue(pin=pin.name, value=value)))

    async def _give_stream(self, pin: Pin, chunks: AsyncIterable[Chunk | str]) -> None:
        async for chunk in chunks:
            await self.emit(pin.name, chunk)
        await self.end(pin.name)

    async def _give_media(self, pin: Pin, output: Output) -> None:
        if isinstance(output, bytes | bytearray | memoryview):
            output = _pieces(output)
        if not isinstance(output, AsyncIterable):
            wanted = f"{type_name(pin.type)} as bytes or MediaValue"
            raise self.broken(pin.name, f"takes {wanted}, got {type(output).__name__}")
        frame = PinMedia(pin=pin.name, type=MEDIA_TYPES[pin.type])
        async for data in _packed(output):
            if frame.data:
                await self._pipe.put(RunResponse(media=frame))
                frame.offset += len(frame.data)
            frame.data = data
            if (most := pin.constraints.max_size_bytes) and frame.offset + len(data) > most:
                raise self.broken(pin.name, f"must be at most {most} bytes and is more")
        if not frame.data:
            raise self.broken(pin.name, "is empty")
        frame.last = True
        await self._pipe.put(RunResponse(media=frame))


def _chunk(chunk: Chunk | str) -> Chunk:
    return Chunk(content=TextContent(text=chunk)) if isinstance(chunk, str) else chunk


async def _pieces(data: bytes | bytearray | memoryview) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for begin in range(0, len(view), _FRAME_BYTES):
        yield bytes(view[begin : begin + _FRAME_BYTES])


async def _packed(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut and join to pieces of a frame's size; the last may be smaller."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        while len(held) >= _FRAME_BYTES:
            yield bytes(held[:_FRAME_BYTES])
            del held[:_FRAME_BYTES]
    if held:
        yield bytes(held)


def _first(error: protovalidate.ValidationError) -> str:
    violation = error.violations[0].proto
    elements = violation.field.elements if violation.field is not None else ()
    path = ".".join(element.field_name for element in elements)
    return f"{path}: {violation.message}"
