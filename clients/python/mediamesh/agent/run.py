"""One run, as its agent sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mediamesh.agent.answer import answering
from mediamesh.api.agent.v1.agent_service_pb2 import Cost, RunResponse
from mediamesh.api.media.v1.media_pb2 import MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Progress, ResultMeta
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import BinaryIO

    from mediamesh.agent.answer import Answer
    from mediamesh.agent.inbox import Inbox
    from mediamesh.agent.media import MediaSource
    from mediamesh.agent.opening import Opening
    from mediamesh.agent.output import Output, Outputs
    from mediamesh.agent.response import Response
    from mediamesh.api.agent.v1.agent_service_pb2 import RunContext
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Run"]


class Run:
    """Inputs, parameters, and the ways to answer.

    Attributes:
        context: The flow, execution and node that the run belongs to.
        inputs: Single values by pin, by its type: str, float, bool, bytes, what JSON gives, or a MediaValue. An
            optional input that is not connected is absent.
        params: Parameters by name, defaults filled in; a whole number is an int.
        streaming: Whether answers go out in pieces: as the manifest declares, and where it leaves that open, as asked.
    """

    def __init__(
        self,
        *,
        context: RunContext,
        opening: Opening,
        inbox: Inbox,
        outputs: Outputs,
        response: Response,
        media: MediaSource,
        deadline: float | None,
    ) -> None:
        self.context = context
        self.inputs: Mapping[str, Any] = opening.inputs
        self.params: Mapping[str, Any] = opening.params
        self.streaming = response.streaming
        self._inbox, self._outputs, self._media, self._deadline = inbox, outputs, media, deadline
        self._response = response

    def time_left(self) -> float | None:
        """Return the seconds until the caller's deadline, to hand on as a timeout; None when it set none."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def whole(self, param: str) -> int:
        """Return a parameter that has no use for a fraction.

        Raises:
            InvalidRequest: it has one.
        """
        value = self.params[param]
        if not isinstance(value, int):
            raise InvalidRequest.of_field(f"params.{param}", f"must be a whole number, is {value}")
        return value

    async def download(self, pin: str) -> bytes:
        """Return all bytes of a media or binary input.

        Raises:
            MediaTooLarge: it exceeds what this server lets a run download.
            NotFound: the store does not have it.
        """
        return b"".join([piece async for piece in self.read(pin)])

    def read(self, pin: str) -> AsyncIterator[bytes]:
        """Iterate over the bytes of a media or binary input without holding all of them."""
        return self._media.read(self._bytes_of(pin), timeout=self.time_left())

    def open(self, pin: str) -> AbstractAsyncContextManager[BinaryIO]:
        """Open a media or binary input as a file that is read and sought, for the length of an ``async with`` block.

        It is for decoders, which run in threads (``asyncio.to_thread``) and read in them. Only what they read is
        downloaded, and some 8 MiB are held at most. When the block ends, also because the run is cancelled, a read
        that still waits in a thread fails with ValueError, so that the thread ends.

        Raises:
            MediaTooLarge: it exceeds what this server lets a run download.
            NotFound: the store does not have it.
        """
        return self._media.open(self._bytes_of(pin), timeout=self.time_left)

    def _bytes_of(self, pin: str) -> MediaValue:
        value = self.inputs[pin]
        if isinstance(value, bytes):  # a binary pin takes both
            value = MediaValue(inline=value)
        if not isinstance(value, MediaValue):
            raise TypeError(f"input {pin!r} is neither media nor bytes")
        return value

    def has(self, pin: str) -> bool:
        """Return whether an optional input is there: a value, or a stream that the caller feeds."""
        return pin in self.inputs or pin in self._inbox.connected

    def stream(self, pin: str) -> AsyncIterator[Chunk]:
        """Iterate over the chunks of a stream input as they come; read all stream inputs side by side.

        They share one connection, and a pin that nobody reads holds up the others once its queue is full.
        """
        return self._inbox.stream(pin)

    async def give(self, pin: str, output: Output) -> None:
        """Send an output before the run is over; the others are what ``process`` returns."""
        await self._outputs.give(pin, output)

    async def emit(self, pin: str, chunk: Chunk | str) -> None:
        """Send the next chunk of a stream output; waits while the caller is slower."""
        await self._outputs.emit(pin, chunk)

    def answer(self, pin: str, *, session_id: str = "") -> AbstractAsyncContextManager[Answer]:
        """Write a structured answer on a pin, for the length of a block; ``response`` in the manifest says how it goes.

        Args:
            pin: A stream; where the answer comes at once it may also be ``json``.
            session_id: Session that the answer belongs to; the node of the execution when empty.
        """
        own = ":".join(filter(None, (self.context.execution_id, self.context.node_id)))
        return answering(pin, self._response, self._outputs, ResultMeta(session_id=session_id or own))

    async def progress(self, percent: float, message: str = "") -> None:
        """Tell how far the run is, 0 to 100."""
        await self._outputs.send(RunResponse(progress=Progress(percent=percent, message=message)))

    async def cost(self, item: str, quantity: float, usd: float = 0.0) -> None:
        """Tell what was used since the last time, such as ``llm.input_tokens``, and its price in US dollars."""
        await self._outputs.send(RunResponse(cost=Cost(item=item, quantity=quantity, usd=usd)))
