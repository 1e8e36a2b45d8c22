"""One ModelStreamInfer call: many requests in flight, each answered once, by decoupled models any number of times."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.parsing import kept_rules, taken_apart
from mediamesh.inference.protocol.outbox import Outbox
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.infer_request import STATUS_PARAMETER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from mediamesh.wire.infer_request import InferRequest

__all__ = ["Manner", "Order", "Runner", "answers", "checked_size"]

_LOG = logging.getLogger(__name__)
_FINAL = "triton_final_response"
_EMPTY_FINAL = "triton_enable_empty_final_response"
_CANCEL = "mediamesh_cancel"
_ORDER_HEADER = "mediamesh-answer-order"
_ENDS_HEADER = "triton_grpc_error"


class Order(StrEnum):
    """In which order requests are answered; those of decoupled models are answered as the answers come, always."""

    REQUEST = "request"
    """As they were sent: what Triton does, and its clients rely on."""
    MODEL = "model"
    """As they were sent, each model by itself."""
    READY = "ready"
    """As the answers come, to be matched by ``id``: no request waits for one before it."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a caller wants its stream.

    Attributes:
        order: In which order requests are answered.
        ends_on_error: The first error ends the stream with its status, as Triton does where it is asked to.
    """

    order: Order = Order.REQUEST
    ends_on_error: bool = False

    @classmethod
    def of_headers(cls, headers: Mapping[str, str | bytes]) -> Manner:
        """Return what a call's metadata says.

        Raises:
            InvalidRequest: it names an order that there is none.
        """
        wanted = headers.get(_ORDER_HEADER, Order.REQUEST)
        if wanted not in set(Order):
            known = ", ".join(Order)
            raise InvalidRequest.of_field(_ORDER_HEADER, f"is {wanted!r}, expected one of {known}")
        return cls(Order(wanted), ends_on_error=headers.get(_ENDS_HEADER) == "true")


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the requests of streams; each raises MeshError.

    Attributes:
        decoupled: Tells whether a request's model may answer any number of times.
        infer: Runs a request that has one answer.
        answers: Runs a request of a decoupled model.
    """

    decoupled: Callable[[InferRequest], bool]
    infer: Callable[[InferRequest, float | None], Awaitable[pb.ModelInferResponse]]
    answers: Callable[[InferRequest, float | None], AsyncGenerator[pb.ModelInferResponse]]


async def answers(
    requests: AsyncIterator[bytes],
    runner: Runner,
    manner: Manner,
    outbox: Outbox,
    draining: asyncio.Event,
    *,
    message_bytes: int,
) -> AsyncGenerator[bytes]:
    """Yield serialised ModelStreamInferResponses; a request that fails is answered with its error.

    Closing it cancels every request that is not answered.

    Args:
        requests: The stream, as it comes.
        runner: Runs the requests.
        manner: How the caller wants it.
        outbox: Where answers wait; a new one.
        draining: Once set, nothing more is read; what was read is answered.
        message_bytes: Most bytes of an answer; a request whose answer has more fails, and not the stream.
    """
    stream = _Stream(runner, manner, outbox, message_bytes)

    async def run() -> None:
        try:
            async with asyncio.TaskGroup() as running:
                reading = running.create_task(stream.read(requests, running))
                stopped = running.create_task(draining.wait())
                await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                stopped.cancel()
        finally:
            outbox.close()

    task = asyncio.create_task(run())  # not in a TaskGroup, which would wrap what ends the stream
    try:
        async for answer in outbox.written():
            yield answer
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Slot:
    """The place of a request's answer among those that are given in order."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: bytes | MeshError | None = None


class _Stream:
    def __init__(self, runner: Runner, manner: Manner, outbox: Outbox, message_bytes: int) -> None:
        self._runner = runner
        self._order = manner.order
        self._ends_on_error = manner.ends_on_error
        self._outbox = outbox
        self._message_bytes = message_bytes
        self._lines: dict[str, deque[_Slot]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def read(self, requests: AsyncIterator[bytes], running: asyncio.TaskGroup) -> None:
        """Start requests as they come and there is room for them."""
        await self._outbox.admit()
        async for data in requests:
            self._start(data, running)
            await self._outbox.admit()

    def _start(self, data: bytes, running: asyncio.TaskGroup) -> None:
        message = pb.ModelInferRequest()
        try:
            request = taken_apart(data)
            message = request.message
            if self._order is Order.READY and _flag(message, _CANCEL):
                self._cancel(message.id)
                return
            kept_rules(request, len(data))
            decoupled = self._runner.decoupled(request)
            wants_end = decoupled and _flag(message, _EMPTY_FINAL)
        except Exception as error:  # noqa: BLE001 - no request's error ends the stream
            self._settle(message, self._slot(message), self._failure(message, error))
            return
        if decoupled:
            running.create_task(self._answer_often(request, wants_end=wants_end))
        else:
            task = running.create_task(self._answer(request, self._slot(message)))
            if self._order is Order.READY:
                self._running[message.id] = task
                task.add_done_callback(partial(self._ran, message.id))

    def _cancel(self, request_id: str) -> None:
        """Take a request back: it leaves its queue, or else what it runs for is not sent; nothing answers it."""
        if (task := self._running.get(request_id)) is not None:
            task.cancel()
        self._outbox.leave()

    def _ran(self, request_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(request_id) is task:
            del self._running[request_id]
        if task.cancelled():
            self._outbox.leave()

    async def _answer(self, request: InferRequest, slot: _Slot | None) -> None:
        answer: bytes | MeshError
        try:
            response = await self._runner.infer(request, None)
            # Triton says so on every stream; a decoupled model's answers but the last say false.
            answer = self._packed(response, final=True)
        except Exception as error:  # noqa: BLE001 - no request's error ends the stream
            answer = self._failure(request.message, error)
        self._settle(request.message, slot, answer)

    async def _answer_often(self, request: InferRequest, *, wants_end: bool) -> None:
        """Answer as the model does; it says when it has ended by nothing but its end, as most backends of Triton do.

        So the last answer is an empty one, which only those get who ask for it.
        """
        message, outbox = request.message, self._outbox
        try:
            async with aclosing(self._runner.answers(request, None)) as responses:
                async for response in responses:
                    outbox.put(self._packed(response, final=False))
                    await outbox.space()
        except Exception as error:  # noqa: BLE001 - no request's error ends the stream
            outbox.put(self._failure(message, error))
        else:
            if wants_end:
                end = pb.ModelInferResponse(
                    id=message.id, model_name=message.model_name, model_version=message.model_version
                )
                outbox.put(self._packed(end, final=True))
        outbox.leave()

    def _packed(self, response: pb.ModelInferResponse, *, final: bool) -> bytes:
        response.parameters[_FINAL].bool_param = final
        answer = pb.ModelStreamInferResponse(infer_response=response).SerializeToString()
        return checked_size(answer, self._message_bytes, response.model_name)

    def _slot(self, message: pb.ModelInferRequest) -> _Slot | None:
        """Keep a place in the line; none is needed where answers go as they come."""
        if self._order is Order.READY:
            return None
        slot = _Slot()
        self._lines.setdefault(self._line(message), deque()).append(slot)
        return slot

    def _settle(self, message: pb.ModelInferRequest, slot: _Slot | None, answer: bytes | MeshError) -> None:
        """Give an answer to be written, and those behind that waited for it."""
        if slot is None:
            self._outbox.put(answer)
            self._outbox.leave()
            return
        slot.answer = answer
        name = self._line(message)
        line = self._lines[name]
        while line and (first := line[0].answer) is not None:
            line.popleft()
            self._outbox.put(first)
            self._outbox.leave()
        if not line:
            del self._lines[name]

    def _line(self, message: pb.ModelInferRequest) -> str:
        return message.model_name if self._order is Order.MODEL else ""

    def _failure(self, message: pb.ModelInferRequest, error: Exception) -> bytes | MeshError:
        """Return an error as Triton's clients read it, with the whole status beside it for ours."""
        if not isinstance(error, MeshError):
            _LOG.error("a request on a stream failed", exc_info=error)
            error = MeshError("The server failed; its log has the cause.")
        if self._ends_on_error:
            return error
        response = pb.ModelStreamInferResponse(error_message=error.text or type(error).__name__)
        inner = response.infer_response
        inner.id, inner.model_name, inner.model_version = message.id, message.model_name, message.model_version
        inner.parameters[STATUS_PARAMETER].string_param = base64.b64encode(
            error.to_status().SerializeToString()
        ).decode()
        inner.parameters[_FINAL].bool_param = True
        return response.SerializeToString()


def checked_size(answer: bytes, limit: int, model: str) -> bytes:
    """Return an answer that may be sent; gRPC would end its whole call for one that may not.

    Raises:
        InvalidRequest: it has more bytes than the limit.
    """
    if len(answer) > limit:
        raise InvalidRequest.of_field(
            "outputs",
            f"model {model}: the answer takes {len(answer)} bytes, more than the {limit} of a message; ask for fewer "
            "items or outputs, or for them in shared memory",
            model=model,
            limit_bytes=limit,
        )
    return answer


def _flag(message: pb.ModelInferRequest, name: str) -> bool:
    given = message.parameters.get(name) if message.parameters else None
    if given is None:
        return False
    if given.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest.of_field(f"parameters[{name}]", "is no bool_param", model=message.model_name)
    return given.bool_param
