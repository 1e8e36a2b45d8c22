"""Runs models on an inference server, or on a real Triton: numpy in, numpy out, all requests over one stream.

Needs numpy, which ``pip install mediamesh`` alone does not bring.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    StreamInterrupted,
    Unavailable,
)
from mediamesh.wire.infer_request import STATUS_PARAMETER, InferRequest, join
from mediamesh.wire.tensors import bf16_to_fp32, datatype_of, from_contents, from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    import grpc

    Array = np.ndarray[Any, Any]

__all__ = ["InferenceClient"]

_SERVICE = "/inference.GRPCInferenceService"
# Requests that wait to be written; beyond it ``infer`` waits, so memory stays bounded when the server is slow.
_UNWRITTEN = 16


class InferenceClient:
    """Multiplexes requests over one ModelStreamInfer stream, which it opens when needed and again after a break.

    Use it as an async context manager; many tasks may call :meth:`infer` at once.

    Args:
        channel: A channel from :func:`mediamesh.client.connect`; it stays the caller's to close.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # Requests are serialised here, with one copy of the tensors; the channel passes bytes on.
        self._open: Any = channel.stream_stream(
            f"{_SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        self._call: Any = channel.unary_unary(
            f"{_SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        self._tasks = asyncio.TaskGroup()
        self._stream: _Stream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run a model once.

        Args:
            model: Name of the model.
            inputs: A tensor for every input of the model, the batch dimension included where the model has one.
            version: Version of the model; empty lets the server choose.
            outputs: Names of the wanted outputs; none asks for all.
            timeout: Seconds to wait for the answer; the server drops the request when they pass in its queue.

        Returns:
            The outputs by name; read-only. BYTES come as object arrays of bytes, BF16 as float32.

        Raises:
            MeshError: the class that the server's error spells; a server that is not ours says only its sentence.
            DeadlineExceeded: the timeout passed.
            Unavailable: the server cannot be reached, or the stream broke off before the answer; may be repeated.
        """
        request = _request(model, version, inputs, outputs, timeout)
        request.message.id = str(next(self._ids))
        try:
            async with asyncio.timeout(timeout):
                return _arrays(await self._current().ask(request.message.id, join(*request)))
        except TimeoutError:
            raise DeadlineExceeded(f"Model {model} did not answer within {timeout:g} s.", model=model) from None

    async def infer_alone(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run a model once in a call of its own, ModelInfer; arguments, answer and errors are those of :meth:`infer`.

        It costs more than a place on the stream, and cancelling it takes the request out of the server's queue.
        """
        request = _request(model, version, inputs, outputs, None)
        return _arrays(await self._call(join(*request), timeout=timeout))

    def _current(self) -> _Stream:
        if self._stream is None or self._stream.broken:
            self._stream = _Stream()
            self._reader = self._tasks.create_task(self._stream.run(self._open))
        return self._stream


class _Stream:
    """One stream, from its opening to its end."""

    def __init__(self) -> None:
        self.broken = False
        self._unwritten: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = asyncio.Semaphore(_UNWRITTEN)
        self._waiting: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}

    async def ask(self, key: str, request: bytes) -> pb.ModelInferResponse:
        """Send a request and wait for its answer."""
        answer: asyncio.Future[pb.ModelInferResponse] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            await self._room.acquire()
            self._unwritten.put_nowait(request)
            return await answer
        finally:
            del self._waiting[key]
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, in case the wait for room was what ended

    async def run(
        self, open_stream: Callable[[AsyncIterator[bytes]], AsyncIterator[pb.ModelStreamInferResponse]]
    ) -> None:
        """Read answers until the stream ends, then fail whoever still waits."""
        ended: MeshError = Unavailable("The inference server ended the stream before it answered; try again.")
        try:
            async for response in open_stream(self._requests()):
                self._settle(response)
        except (Unavailable, StreamInterrupted, Cancelled) as error:
            ended = Unavailable(f"The inference stream broke off: {error.text}")
        except MeshError as error:
            ended = error
        finally:
            self.broken = True
            self._fail(ended)

    def _settle(self, response: pb.ModelStreamInferResponse) -> None:
        answer = self._waiting.get(response.infer_response.id)
        if answer is None or answer.done():
            return  # its caller left
        if response.error_message:
            answer.set_exception(_error_of(response))
        else:
            answer.set_result(response.infer_response)

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._unwritten.get()
            self._room.release()

    def _fail(self, error: MeshError) -> None:
        for answer in self._waiting.values():
            self._room.release()  # whoever waits for room learns of the end instead
            if not answer.done():
                answer.set_exception(error)


def _request(
    model: str, version: str, inputs: Mapping[str, Array], outputs: Sequence[str], timeout: float | None
) -> InferRequest:
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    raw = []
    for name, array in inputs.items():
        try:
            message.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        except ValueError as error:
            raise InvalidRequest.of_field(f"inputs[{name!r}]", str(error), model=model) from None
        raw.append(to_raw(array))
    for name in outputs:
        message.outputs.add(name=name)
    if timeout is not None:
        message.parameters["timeout"].int64_param = max(1, round(timeout * 1e6))
    return InferRequest(message, raw)


def _arrays(response: pb.ModelInferResponse) -> dict[str, Array]:
    arrays = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            array = from_raw(output.datatype, output.shape, response.raw_output_contents[index])
        else:
            array = from_contents(output.datatype, output.shape, output.contents)
        arrays[output.name] = bf16_to_fp32(array) if output.datatype == "BF16" else array
    return arrays


def _error_of(response: pb.ModelStreamInferResponse) -> MeshError:
    """Return the error with its class and details where the server is ours, else with its sentence alone."""
    packed = response.infer_response.parameters.get(STATUS_PARAMETER)
    try:
        if packed is not None:
            return MeshError.from_status(status_pb2.Status.FromString(base64.b64decode(packed.string_param)))
    except (DecodeError, binascii.Error):
        pass
    return MeshError(response.error_message)
