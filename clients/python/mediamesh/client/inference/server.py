"""One inference server: its calls, what runs on it, and whether it is believed to be there."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client.channel import message_limit
from mediamesh.client.inference.answers import error_of, is_final
from mediamesh.client.inference.requests import CANCEL, checked_size, packed
from mediamesh.client.inference.stream import Stream
from mediamesh.wire.errors import MeshError, NotFound, NotImplementedByServer, Unavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator

    import grpc
    from google.protobuf.message import Message

    from mediamesh.wire.infer_request import InferRequest

__all__ = ["Server"]

_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_SERVICE = f"/{_DESCRIPTOR.full_name}"
# HealthCheckResponse { status: SERVING }; the package with its class comes with servers only.
_SERVING = b"\x08\x01"
# Our answers are matched by id, so none has to wait for one before it; Triton takes no notice.
_AS_READY = (("mediamesh-answer-order", "ready"),)
_LACK_SECONDS = 1.0
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0


class Server:
    """One server of a client.

    Args:
        channel: How it is reached.
        address: What it is called.
        tasks: Where streams are read.

    Attributes:
        outstanding: Requests that it has not answered.
        failures: How often in a row it could not be reached; 0 says that it is believed to be there.
        turn: Rises each time it is chosen.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str, tasks: asyncio.TaskGroup) -> None:
        self.channel, self.address = channel, address
        self.outstanding = self.failures = self.turn = 0
        self._tasks = tasks
        self._limit = message_limit(channel)
        self._lacking: dict[str, float] = {}
        self._cancels: bool | None = None
        self._streams: dict[str, Stream] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        # Requests are serialised here, with one copy of the tensors; the channel passes bytes on.
        self._open: Any = channel.stream_stream(
            f"{_SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        self._call: Any = channel.unary_unary(
            f"{_SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        self._calls: dict[str, Any] = {}
        self._health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")

    def close(self) -> None:
        """Leave all streams; whoever waits for an answer, or asks from here on, gets Unavailable."""
        self._closed = True
        for reader in self._readers:
            reader.cancel()

    @contextmanager
    def working(self) -> Generator[None]:
        """Count a request as outstanding."""
        self.outstanding += 1
        try:
            yield
            self.failures = 0
        finally:
            self.outstanding -= 1

    def eject(self) -> None:
        """Note that it could not be reached."""
        self.failures += 1

    @property
    def backoff(self) -> float:
        """For how many seconds it should be left alone."""
        return min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(max(self.failures - 1, 0), 10), _LONGEST_BACKOFF_SECONDS)

    def lacks(self, model: str) -> bool:
        """Tell whether it said a moment ago that it cannot run a model."""
        return self._lacking.get(model, 0) > time.monotonic()

    def note_lack(self, model: str) -> None:
        """Note that it cannot run a model just now."""
        self._lacking[model] = time.monotonic() + _LACK_SECONDS

    async def probe(self) -> None:
        """Ask for its health.

        Raises:
            MeshError: it is not there, or does not want requests.
        """
        try:
            serving = await self._health(b"", timeout=2) == _SERVING
        except NotImplementedByServer:
            serving = (await self.unary("ServerReady", pb.ServerReadyRequest(), timeout=2)).ready
        if not serving:
            raise Unavailable(f"{self.address} is not serving.")

    async def has(self, model: str, version: str) -> bool:
        """Tell whether a model is ready to run."""
        try:
            return bool((await self.unary("ModelReady", pb.ModelReadyRequest(name=model, version=version))).ready)
        except NotFound:
            return False

    async def unary(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """Make any other call of the service.

        Raises:
            InvalidRequest: the request is too large to be sent.
        """
        if (call := self._calls.get(method)) is None:
            answer = GetMessageClass(_DESCRIPTOR.methods_by_name[method].output_type)
            call = self.channel.unary_unary(f"{_SERVICE}/{method}", response_deserializer=answer.FromString)
            self._calls[method] = call
        return await call(checked_size(request.SerializeToString(), self._limit), timeout=timeout)

    async def ask(self, request: InferRequest, seconds: float | None) -> pb.ModelInferResponse:
        """Run a request over the stream of its model.

        Raises:
            Unavailable: the client was left: nobody would leave a stream that is opened now.
        """
        if self._closed:
            raise Unavailable("The inference client was left.")
        model = request.message.model_name
        stream = self._streams.get(model)
        if stream is None or stream.broken:
            self._streams[model] = stream = self._new_stream()
        return await stream.ask(request, seconds)

    def _new_stream(self) -> Stream:
        if self._cancels is None:
            self._cancels = False
            self._read(self._learn())
        stream = Stream(lambda: self._cancels is True, self._limit)
        reader = self._read(stream.run(partial(self._open, metadata=_AS_READY)))
        reader.add_done_callback(lambda _: stream.end())  # a task that is cancelled at once never runs
        return stream

    def _read(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        reader = self._tasks.create_task(work)
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return reader

    async def _learn(self) -> None:
        """Ask whether it knows how a request is taken back; where it does not say, the next stream asks again."""
        try:
            # Without a deadline: nobody waits for it, and a server that is slow at first has streams for hours.
            told = await self.unary("ServerMetadata", pb.ServerMetadataRequest())
        except MeshError:
            self._cancels = None
        else:
            self._cancels = CANCEL in told.extensions

    async def call(self, request: InferRequest, seconds: float | None) -> pb.ModelInferResponse:
        """Run a request in a call of its own, ModelInfer."""
        data = packed(request, request.message.id, None, self._limit)
        response: pb.ModelInferResponse = await self._call(data, timeout=seconds)
        return response

    async def answers(self, request: InferRequest, seconds: float | None) -> AsyncGenerator[pb.ModelInferResponse]:
        """Run a request in a stream of its own, and yield its answers as they come; leaving cancels it."""
        call = self._open(_only(packed(request, "1", seconds, self._limit)), timeout=seconds)
        try:
            async for response in call:
                if response.error_message:
                    raise error_of(response)
                yield response.infer_response
                if is_final(response.infer_response):
                    return
        finally:
            call.cancel()

    def __repr__(self) -> str:
        return f"<{self.address}, {self.outstanding} outstanding, {self.failures} failures>"


async def _only(request: bytes) -> AsyncIterator[bytes]:
    yield request
