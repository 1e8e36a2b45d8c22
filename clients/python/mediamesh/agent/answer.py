"""A structured answer, sent as the manifest of its agent declares: in pieces while it grows, or once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mediamesh.agent.pins import to_value
from mediamesh.api.agent.v1.agent_service_pb2 import RunResponse
from mediamesh.api.agent.v1.pin_pb2 import Pin, PinType
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Delta, Final, Progress, ResultMeta, Snapshot, Usage
from mediamesh.wire.pins import type_name

if TYPE_CHECKING:
    from google.protobuf import struct_pb2

    from mediamesh.agent.output import Outputs
    from mediamesh.agent.response import Response

__all__ = ["Answer", "answering"]

_JSON = Pin(name="data", type=PinType.PIN_TYPE_JSON)
_MOST_BYTES = 16 * 1024 * 1024
# The contract lets a delta have 64 KiB, which 4 bytes of UTF-8 for each character do not exceed.
_DELTA_CHARACTERS = 16_384


class Answer:
    """A structured answer on one output pin.

    Streamed it is a `meta` chunk, then `delta` or `snapshot` and `progress` chunks, and a `final` one with all of it.
    Sent at once it is the `final` chunk alone, or on a pin that takes a single value that value. What is written is
    gathered until there are as many bytes as the manifest's ``buffer_size``; in silence longer than its
    ``heartbeat_interval_ms`` what is gathered goes out, or a `progress` chunk that repeats the last one.

    Every method raises AgentFailed, naming the pin, where the agent breaks what its manifest says.

    Attributes:
        meta: What is known about the answer; told when it begins, and as it is then when it ends.
        usage: What a language model used; told at the end.
    """

    def __init__(self, pin: str, response: Response, outputs: Outputs, meta: ResultMeta) -> None:
        self.meta, self.usage = meta, Usage()
        self._pin, self._response, self._outputs = pin, response, outputs
        self._data: Any = {}
        self._pending: list[Delta] = []
        self._gathered = self._size = 0
        self._percent = 0.0
        self._ended = False
        self._turn = asyncio.Lock()  # one sends at a time: the agent, or the heartbeat
        self._sent_at = _now()

    async def delta(self, field: str, text: str) -> None:
        """Append text to a field of the answer.

        Args:
            field: Its path, with dots; objects on the way are made.
            text: What is new.
        """
        self._check_open()
        size = len(text.encode())
        self._size += size
        if self._size > _MOST_BYTES:
            raise self._outputs.broken(self._pin, f"has more than {_MOST_BYTES} bytes of text")
        self._append(field, text)
        if not self._response.streaming:
            return
        if self._pending and self._pending[-1].field == field:
            self._pending[-1].text += text
        else:
            self._pending.append(Delta(field=field, text=text))
        self._gathered += size
        if self._gathered >= self._response.buffer_bytes:
            await self.flush()

    async def snapshot(self, data: Any) -> None:
        """Put the whole answer so far in place of what was before; for an agent that declares snapshots."""
        self._check_open()
        if self._response.streaming and not self._response.snapshots:
            raise self._outputs.broken(self._pin, "got a snapshot, and response.chunk_type is delta")
        value = self._json(data)
        self._data = deepcopy(data)
        if self._response.streaming:
            async with self._turn:
                self._forget_pending()
                await self._send(Chunk(snapshot=Snapshot(data=value)))

    async def progress(self, percent: float, message: str = "") -> None:
        """Tell how far the answer is, 0 to 100."""
        self._check_open()
        progress = Progress(percent=percent, message=message)
        if not self._response.streaming:
            await self._outputs.send(RunResponse(progress=progress))
            return
        async with self._turn:
            self._percent = percent
            await self._send_pending()
            await self._send(Chunk(progress=progress))

    async def flush(self) -> None:
        """Send what is gathered, however little it is."""
        async with self._turn:
            await self._send_pending()

    async def finish(self, data: Any = None) -> None:
        """End the answer; leaving its block does so too.

        Args:
            data: The whole answer; what was gathered when None.
        """
        self._check_open()
        data = self._data if data is None else data
        async with self._turn:
            self._ended = True
            try:
                await self._send_final(data)
            except BaseException:
                self._ended = False  # given up, or no JSON: it may be finished yet
                raise
            if self._outputs.streams(self._pin):
                await self._outputs.end(self._pin)

    async def begin(self) -> None:
        """Tell what is known before anything comes."""
        pin = self._outputs.pin(self._pin)
        if self._response.streaming:
            if not self._outputs.streams(self._pin):
                raise self._outputs.broken(self._pin, f"is {type_name(pin.type)}, and a streamed answer needs a stream")
            async with self._turn:
                await self._send(Chunk(meta=self.meta))

    async def beat(self) -> None:
        """Break every silence, until cancelled."""
        pause = self._response.heartbeat_seconds
        while True:
            await asyncio.sleep(max(0.001, self._sent_at + pause - _now()))
            async with self._turn:
                if self._ended or _now() < self._sent_at + pause:
                    continue
                if self._pending:
                    await self._send_pending()
                else:
                    await self._send(Chunk(progress=Progress(percent=self._percent)))

    @property
    def ended(self) -> bool:
        """Whether the final value is sent."""
        return self._ended

    def _check_open(self) -> None:
        if self._ended:
            raise self._outputs.broken(self._pin, "has its final value already")

    def _append(self, field: str, text: str) -> None:
        *path, name = field.split(".")
        place = self._data
        for step in path:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or not isinstance(place.setdefault(name, ""), str):
            raise self._outputs.broken(self._pin, f"has no text at {field!r} to append to")
        place[name] += text

    def _json(self, data: Any) -> struct_pb2.Value:
        try:
            return to_value(_JSON, data).json
        except TypeError as error:
            raise self._outputs.broken(self._pin, str(error)) from None

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._gathered = 0

    async def _send_final(self, data: Any) -> None:
        if not self._outputs.streams(self._pin):
            await self._outputs.give(self._pin, data)
            return
        value = self._json(data)
        await self._send_pending()
        used = self.usage if self.usage.ByteSize() else None
        await self._send(Chunk(final=Final(meta=self.meta, data=value, usage=used)))

    async def _send_pending(self) -> None:
        """Send what is gathered; the caller has the turn. When it gives up, the rest is gathered still."""
        pending, gathered = list(self._pending), self._gathered
        self._forget_pending()
        if pending and self._response.snapshots:
            try:
                await self._send(Chunk(snapshot=Snapshot(data=self._json(self._data))))
            except asyncio.CancelledError:
                self._pending[:0], self._gathered = pending, self._gathered + gathered
                raise
            return
        for index, delta in enumerate(pending):
            for begin in range(0, len(delta.text), _DELTA_CHARACTERS):
                piece = delta.text[begin : begin + _DELTA_CHARACTERS]
                try:
                    await self._send(Chunk(delta=Delta(field=delta.field, text=piece)))
                except asyncio.CancelledError:
                    rest = Delta(field=delta.field, text=delta.text[begin:])
                    self._pending[:0] = [rest, *pending[index + 1 :]]
                    self._gathered = sum(len(each.text.encode()) for each in self._pending)
                    raise

    async def _send(self, chunk: Chunk) -> None:
        await self._outputs.emit(self._pin, chunk)
        self._sent_at = _now()


@asynccontextmanager
async def answering(pin: str, response: Response, outputs: Outputs, meta: ResultMeta) -> AsyncGenerator[Answer]:
    """Begin an answer, and finish it unless that was done or the block fails."""
    answer = Answer(pin, response, outputs, meta)
    await answer.begin()
    # Not a TaskGroup: it would wrap what the agent raises, and the heartbeat raises nothing.
    beat = asyncio.create_task(answer.beat()) if response.streaming else None
    try:
        yield answer
        if not answer.ended:
            await answer.finish()
    finally:
        if beat is not None:
            beat.cancel()
            await asyncio.wait([beat])


def _now() -> float:
    return asyncio.get_running_loop().time()
