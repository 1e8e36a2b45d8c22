"""One ModelStreamInfer call: many requests in flight, answered as they are ready, matched by their ids."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.kit.boundary import checked
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.infer_request import STATUS_PARAMETER, InferRequest, split

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    Infer = Callable[[InferRequest, float | None], Awaitable[pb.ModelInferResponse]]

__all__ = ["answers", "parse"]

_LOG = logging.getLogger(__name__)


def parse(data: bytes) -> InferRequest:
    """Take a request apart and check the rules of its fields.

    Raises:
        InvalidRequest: the bytes are no request, or one that breaks a rule.
    """
    request = _split(data)
    checked(request.message)
    return request


async def answers(
    requests: AsyncIterator[bytes], infer: Infer, *, most: int, draining: asyncio.Event
) -> AsyncGenerator[pb.ModelStreamInferResponse]:
    """Yield the answer to every request as soon as it is there; a request that fails is answered with its error.

    Args:
        requests: The stream, as it comes.
        infer: Runs one request.
        most: Requests in flight, answers not yet written included; beyond it reading pauses.
        draining: Once set, nothing more is read; what was read is answered.
    """
    ready: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)

    async def answer(data: bytes) -> None:
        ready.put_nowait(await _answer(data, infer))

    async def read(running: asyncio.TaskGroup) -> None:
        await room.acquire()
        async for data in requests:
            running.create_task(answer(data))
            await room.acquire()

    async def run() -> None:
        async with asyncio.TaskGroup() as running:
            reading = running.create_task(read(running))
            stopped = running.create_task(draining.wait())
            await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            stopped.cancel()
        ready.put_nowait(None)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        try:
            while (response := await ready.get()) is not None:
                yield response
                room.release()
        except GeneratorExit:
            return  # a task group would wrap it; whoever closes a generator wants it bare
        finally:
            running.cancel()


async def _answer(data: bytes, infer: Infer) -> pb.ModelStreamInferResponse:
    request_id = ""
    try:
        request = _split(data)
        request_id = request.message.id
        checked(request.message)
        response = await infer(request, None)
    except MeshError as error:
        return _failure(request_id, error)
    except Exception:  # noqa: BLE001 - no request's error ends the stream
        _LOG.exception("a request on a stream failed")
        return _failure(request_id, MeshError("The server failed; its log has the cause."))
    # Triton says so on every stream; a decoupled model's answers but the last say false.
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def _failure(request_id: str, error: MeshError) -> pb.ModelStreamInferResponse:
    """Return an error as Triton's clients read it, with the whole status beside it for ours."""
    response = pb.ModelStreamInferResponse(error_message=error.text or type(error).__name__)
    response.infer_response.id = request_id
    packed = base64.b64encode(error.to_status().SerializeToString()).decode()
    response.infer_response.parameters[STATUS_PARAMETER].string_param = packed
    response.infer_response.parameters["triton_final_response"].bool_param = True
    return response


def _split(data: bytes) -> InferRequest:
    try:
        return split(data)
    except DecodeError as error:
        raise InvalidRequest(f"The message is no ModelInferRequest: {error}") from None
