"""Sends one request again and again, at as little cost for the load generator as Python allows."""

from __future__ import annotations

import asyncio
import base64
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import code_pb2, status_pb2

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.infer_request import STATUS_PARAMETER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    Send = Callable[[], Awaitable[str]]

__all__ = ["OK", "stream_sender", "unary_sender"]

OK = "OK"
_SERVICE = "/inference.GRPCInferenceService"
# Answers are matched by their ids: a server of ours then lets none wait for a slower one before it.
_READY_ORDER = (("mediamesh-answer-order", "ready"),)
_ID_TAG = bytes([pb.ModelInferRequest.ID_FIELD_NUMBER << 3 | 2])


@asynccontextmanager
async def unary_sender(channel: grpc.aio.Channel, body: bytes, timeout: float) -> AsyncGenerator[Send]:
    """Yield what calls ModelInfer once and returns the name of the status.

    Args:
        channel: Leads to the server.
        body: A ModelInferRequest, serialised.
        timeout: Seconds after which a request is given up.
    """
    call: Any = channel.unary_unary(f"{_SERVICE}/ModelInfer")

    async def send() -> str:
        try:
            await call(body, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return OK

    yield send


@asynccontextmanager
async def stream_sender(channel: grpc.aio.Channel, body: bytes, timeout: float) -> AsyncGenerator[Send]:
    """Yield what sends a request on one ModelStreamInfer and returns the name of the status of its last answer.

    A stream that breaks fails all that wait, with its status; the next request opens another.

    Args:
        channel: Leads to the server.
        body: A ModelInferRequest without an id, serialised.
        timeout: Seconds after which a request is given up.
    """
    call: Any = channel.stream_stream(
        f"{_SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )
    ids = itertools.count(1)
    stream: _Stream | None = None
    async with asyncio.TaskGroup() as tasks:
        reading: list[asyncio.Task[None]] = []

        async def send() -> str:
            nonlocal stream
            if stream is None or stream.broken:
                stream = _Stream()
                reading.append(tasks.create_task(stream.run(call)))
            key = str(next(ids))
            try:
                async with asyncio.timeout(timeout):
                    return await stream.ask(key, b"".join((_ID_TAG, bytes([len(key)]), key.encode(), body)))
            except TimeoutError:
                return str(grpc.StatusCode.DEADLINE_EXCEEDED.name)

        try:
            yield send
        finally:
            for task in reading:
                task.cancel()


class _Stream:
    """One stream, from its opening to its end."""

    def __init__(self) -> None:
        self.broken = False
        self._unwritten: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def ask(self, key: str, request: bytes) -> str:
        """Send a request and wait for its last answer."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        self._unwritten.put_nowait(request)
        try:
            return await answer
        finally:
            del self._waiting[key]

    async def run(self, call: Any) -> None:
        """Read until the stream ends."""
        ended: str = grpc.StatusCode.UNAVAILABLE.name
        try:
            async for response in call(self._requests(), metadata=_READY_ORDER):
                self._settle(response)
        except grpc.aio.AioRpcError as error:
            ended = error.code().name
        finally:
            self.broken = True
            self._unwritten.put_nowait(None)  # grpc waits for the next request even after the end
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result(ended)

    def _settle(self, response: pb.ModelStreamInferResponse) -> None:
        answer = self._waiting.get(response.infer_response.id)
        if answer is None or answer.done():
            return
        if response.error_message:
            answer.set_result(_status_of(response))
            return
        parameters = response.infer_response.parameters
        if "triton_final_response" not in parameters or parameters["triton_final_response"].bool_param:
            answer.set_result(OK)

    async def _requests(self) -> AsyncIterator[bytes]:
        while (request := await self._unwritten.get()) is not None:
            yield request


def _status_of(response: pb.ModelStreamInferResponse) -> str:
    """Return the name of an error's status; a stream of Triton does not tell it."""
    packed = response.infer_response.parameters.get(STATUS_PARAMETER)
    if packed is None:
        return grpc.StatusCode.UNKNOWN.name
    status = status_pb2.Status.FromString(base64.b64decode(packed.string_param))
    return code_pb2.Code.Name(status.code)
