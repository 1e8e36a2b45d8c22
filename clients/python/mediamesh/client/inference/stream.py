"""One ModelStreamInfer call, from its opening to its end, shared by many requests for one model."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.client.inference.answers import error_of
from mediamesh.client.inference.requests import cancellation, packed
from mediamesh.wire.errors import Cancelled, MeshError, StreamInterrupted, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb
    from mediamesh.wire.infer_request import InferRequest

    Open = Callable[[AsyncIterator[bytes]], AsyncIterator[pb.ModelStreamInferResponse]]

__all__ = ["Stream"]

# Requests that wait to be written; beyond it ``ask`` waits, so memory stays bounded when the server is slow.
_UNWRITTEN = 16


@dataclass(frozen=True, slots=True)
class _Cancellation:
    """Takes a request back; few bytes, one at most for each request, and so beside the room for requests."""

    data: bytes


class Stream:
    """Carries requests to a server, and finds the caller of each answer by its id.

    Attributes:
        broken: It has ended; open another.

    Args:
        cancels: Tells whether the server knows how a request is taken back.
        limit: Most bytes of a request; None where nobody knows.
    """

    def __init__(self, cancels: Callable[[], bool], limit: int | None) -> None:
        self.broken = False
        self._limit = limit
        self._cancels = cancels
        self._ids = itertools.count(1)
        self._unwritten: asyncio.Queue[bytes | _Cancellation | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNWRITTEN)
        self._waiting: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}
        self._ended: MeshError = Unavailable("The inference server ended the stream before it answered; try again.")

    async def ask(self, request: InferRequest, seconds: float | None) -> pb.ModelInferResponse:
        """Send a request and wait for its answer; who stops waiting takes the request back.

        Raises:
            InvalidRequest: the request is too large to be sent; those of others go on.
            Unavailable: the stream broke off before the answer.
            MeshError: what the server says.
        """
        answer: asyncio.Future[pb.ModelInferResponse] = asyncio.get_running_loop().create_future()
        key = str(next(self._ids))
        self._waiting[key] = answer
        sent = False
        try:
            await self._room.acquire()
            try:
                if not answer.done():
                    self._unwritten.put_nowait(packed(request, key, seconds, self._limit))
                    sent = True
            finally:
                if not sent:
                    self._room.release()
            return await answer
        finally:
            del self._waiting[key]
            if sent and answer.cancelled() and not self.broken and self._cancels():
                self._unwritten.put_nowait(_Cancellation(cancellation(request.message.model_name, key)))
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, in case the wait for room was what ended

    async def run(self, open_stream: Open) -> None:
        """Read answers until the stream ends, then fail whoever still waits."""
        try:
            async for response in open_stream(self._requests()):
                self._settle(response)
        except (Unavailable, StreamInterrupted, Cancelled) as error:
            self._ended = Unavailable(f"The inference stream broke off: {error.text}")
        except MeshError as error:
            self._ended = error
        finally:
            self.end()

    def end(self) -> None:
        """Fail whoever still waits; the end of :meth:`run`, and of a stream that was left before it began to run."""
        if self.broken:
            return
        self.broken = True
        self._unwritten.put_nowait(None)  # grpc waits for the next request even after the end
        for answer in self._waiting.values():
            self._room.release()  # whoever waits for room learns of the end instead
            if not answer.done():
                answer.set_exception(self._ended)

    def _settle(self, response: pb.ModelStreamInferResponse) -> None:
        answer = self._waiting.get(response.infer_response.id)
        if answer is None and response.error_message and not response.infer_response.id:
            # A request that the server could not even read; it can only be told where just one waits.
            if len(self._waiting) != 1:
                raise Unavailable(f"a request failed, and the server does not say which: {response.error_message}")
            (answer,) = self._waiting.values()
        if answer is None or answer.done():
            return  # its caller left
        if response.error_message:
            answer.set_exception(error_of(response))
        else:
            answer.set_result(response.infer_response)

    async def _requests(self) -> AsyncIterator[bytes]:
        while (request := await self._unwritten.get()) is not None:
            if isinstance(request, _Cancellation):
                yield request.data
            else:
                yield request
                self._room.release()
