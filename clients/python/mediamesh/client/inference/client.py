"""Runs models on one inference server or on several, ours or Triton's: numpy in, numpy out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Self

from mediamesh.client.channel import MAX_TENSORS_BYTES, connect
from mediamesh.client.inference.answers import Answer, is_final
from mediamesh.client.inference.classes import ScoredClass, scored_classes
from mediamesh.client.inference.models import Models
from mediamesh.client.inference.pool import Pool, Search
from mediamesh.client.inference.requests import request_of
from mediamesh.client.inference.sequence import Sequence
from mediamesh.client.inference.server import Server
from mediamesh.client.inference.shared_memory import (
    SharedTensor,
    SharedTensors,
    answered,
    registered_anew,
    shared_of,
    shared_tensors,
)
from mediamesh.client.inference.timing import deadline, left
from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    import grpc

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb
    from mediamesh.client.inference.requests import Inputs, Outputs, Parameters
    from mediamesh.wire.infer_request import InferRequest

    Ask = Callable[[Server, InferRequest, float | None], Awaitable[pb.ModelInferResponse]]

__all__ = ["InferenceClient"]

_PATIENCE_SECONDS = 5.0


class InferenceClient:
    """A pool of servers, and one bidirectional stream for each model that runs on one.

    Use it as an async context manager; many tasks may call it at once. A request whose server fails is sent to another,
    within its deadline: running a model twice does no harm, and it is answered once.

    Args:
        servers: Addresses, ``host:port``, or channels from :func:`mediamesh.client.connect`, which stay the caller's to
            close.
        patience: Seconds for which a request looks for a server while all are away; unless given, 5 where there are
            several servers and none, but for one more try, where there is one.
        keepalive_seconds: Of the connections to addresses, see :func:`mediamesh.client.connect`.
        max_message_bytes: Of the connections to addresses: the largest request that is sent, and the largest answer
            that is received. Not less than that of the servers, which is 64 MiB unless they are told otherwise: a
            larger answer breaks off the stream that it comes on. A channel has the limit with which it was made.

    Attributes:
        models: What models there are, and loading them.
    """

    models: Models

    def __init__(
        self,
        *servers: str | grpc.aio.Channel,
        patience: float | None = None,
        keepalive_seconds: float = 60.0,
        max_message_bytes: int = MAX_TENSORS_BYTES,
    ) -> None:
        if not servers:
            raise InvalidRequest.of_field("servers", "at least one address is needed")
        self._given = servers
        self._patience = (_PATIENCE_SECONDS if len(servers) > 1 else 0.0) if patience is None else patience
        self._keepalive_seconds = keepalive_seconds
        self._max_message_bytes = max_message_bytes
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            channels = [(await self._channel(given, stack), given) for given in self._given]
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            servers = [
                Server(channel, given if isinstance(given, str) else f"channel {number}", tasks)
                for number, (channel, given) in enumerate(channels)
            ]
            self._pool = Pool(servers, self._patience, tasks)
            stack.callback(self._pool.close)
            self.models = Models(self._pool)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A task group told of the block's error would wrap it in a group of its own.
        await self._exit.aclose()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Outputs = (),
        timeout: float | None = None,
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> Answer:
        """Run a model once, over the model's stream.

        Args:
            model: Name of the model.
            inputs: A tensor for every input of the model, the batch dimension included where the model has one.
            version: Version of the model; empty lets the server choose.
            outputs: Names of the wanted outputs; none asks for all. A mapping asks for so many best classes of each,
                as BYTES, which :meth:`classify` reads, or puts one into shared memory, and then not into the answer.
            timeout: Seconds to wait for the answer, all tries together; the server drops the request when they pass in
                its queue.
            priority: 1 is the highest; 0 takes the model's default.
            parameters: Further parameters of the request, for the model.

        Returns:
            The outputs by name; read-only. BYTES come as object arrays of bytes, BF16 as float32.

        Raises:
            MeshError: the class that the server's error spells; a server that is not ours says only its sentence.
            InvalidRequest: also where the request, or its answer, is larger than a message may be.
            DeadlineExceeded: the timeout passed.
            Unavailable: no server can be reached, or the streams broke off before the answer; may be repeated.
        """
        request = request_of(model, inputs, version=version, outputs=outputs, priority=priority, parameters=parameters)
        return Answer(await self._once(request, Server.ask, timeout, shared_of(inputs, outputs)), _elsewhere(outputs))

    async def infer_alone(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Outputs = (),
        timeout: float | None = None,
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> Answer:
        """Run a model once in a call of its own, ModelInfer; arguments, answer and errors are those of :meth:`infer`.

        It costs more than a place on the stream, and cancelling it takes the request out of the queue of any server;
        on the stream only servers of ours take a request back.
        """
        request = request_of(model, inputs, version=version, outputs=outputs, priority=priority, parameters=parameters)
        return Answer(await self._once(request, Server.call, timeout, shared_of(inputs, outputs)), _elsewhere(outputs))

    async def stream(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Outputs = (),
        timeout: float | None = None,
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> AsyncGenerator[Answer]:
        """Run a model that gives any number of answers, and yield each as it comes; arguments as :meth:`infer` has.

        Leaving the iteration cancels the request; ``contextlib.aclosing`` does that at once. A slow reader slows the
        server down, and nobody else. Once an answer came, a failure is raised and nothing is tried again.

        Raises:
            MeshError: what :meth:`infer` raises.
        """
        request = request_of(model, inputs, version=version, outputs=outputs, priority=priority, parameters=parameters)
        # Without it Triton does not say which answer was the last when a model closes without one.
        request.message.parameters["triton_enable_empty_final_response"].bool_param = True
        search = Search(self._pool, model, version)
        # The deadline is the call's: one of asyncio would strike the reader's code, wherever it is just then.
        ends = None if timeout is None else time.monotonic() + timeout
        has_begun = False
        while True:
            server = search.server()
            try:
                with server.working(), answered(shared_of(inputs, outputs)):
                    async with aclosing(server.answers(request, left(ends))) as responses:
                        async for response in responses:
                            has_begun = True
                            if response.outputs or not is_final(response):
                                yield Answer(response, _elsewhere(outputs))
            except MeshError as error:
                if has_begun:
                    raise
                await search.failed(server, error)
            else:
                return

    async def classify(
        self,
        model: str,
        inputs: Inputs,
        output: str,
        *,
        best: int = 1,
        version: str = "",
        timeout: float | None = None,
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> list[list[ScoredClass]]:
        """Run a model once and return the best classes of one output, best first, for every item of the batch.

        Args:
            model: Name of the model.
            inputs: A tensor for every input of the model.
            output: Name of the output that holds the scores.
            best: How many classes.
            version: As :meth:`infer` has it, and so have the others.
            timeout: Seconds to wait for the answer.
            priority: 1 is the highest.
            parameters: Further parameters of the request.

        Raises:
            MeshError: what :meth:`infer` raises.
        """
        answer = await self.infer(
            model,
            inputs,
            version=version,
            outputs={output: best},
            timeout=timeout,
            priority=priority,
            parameters=parameters,
        )
        return scored_classes(answer[output])

    def sequence(self, model: str, *, version: str = "", priority: int = 0) -> Sequence:
        """Return a sequence of requests to a model that keeps state between them; use it as a context manager."""
        return Sequence(self._pool, model, version, priority)

    def shared_tensors(self, slot_bytes: int, *, slots: int = 8) -> AbstractAsyncContextManager[SharedTensors]:
        """Return memory shared with the servers, all on this host, for tensors that then need not travel.

        Args:
            slot_bytes: Size of the largest tensor.
            slots: How many tensors can be in use at once.

        Raises:
            MeshError: a server does not share memory with this client.
        """
        return shared_tensors(self._pool.servers, slot_bytes, slots)

    async def _once(
        self, request: InferRequest, ask: Ask, timeout: float | None, shared: list[SharedTensor]
    ) -> pb.ModelInferResponse:
        model = request.message.model_name
        search = Search(self._pool, model, request.message.model_version)
        async with deadline(timeout, model) as ends:
            while True:
                server = search.server()
                try:
                    with server.working(), answered(shared):
                        response = await ask(server, request, left(ends))
                except MeshError as error:
                    if not await registered_anew(server, shared, error):
                        await search.failed(server, error)
                    continue
                if is_final(response) is False:
                    raise InvalidRequest(f"Model {model} gives any number of answers; use stream().", model=model)
                return response

    async def _channel(self, given: str | grpc.aio.Channel, stack: AsyncExitStack) -> grpc.aio.Channel:
        if not isinstance(given, str):
            return given
        channel = connect(given, keepalive_seconds=self._keepalive_seconds, max_message_bytes=self._max_message_bytes)
        return await stack.enter_async_context(channel)


def _elsewhere(outputs: Outputs) -> list[str]:
    """Return the names of the outputs that go into shared memory."""
    wanted = outputs.items() if isinstance(outputs, Mapping) else ()
    return [name for name, how in wanted if isinstance(how, SharedTensor)]
