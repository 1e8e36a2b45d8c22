"""Requests that a stateful model sees as one sequence."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Self

from mediamesh.client.inference.answers import Answer, is_answer
from mediamesh.client.inference.pool import Search
from mediamesh.client.inference.requests import request_of
from mediamesh.client.inference.shared_memory import answered, shared_of
from mediamesh.client.inference.timing import deadline, left
from mediamesh.wire.errors import FailedPrecondition, MeshError

if TYPE_CHECKING:
    from types import TracebackType

    from mediamesh.client.inference.pool import Pool
    from mediamesh.client.inference.requests import Inputs, Outputs, Parameters
    from mediamesh.client.inference.server import Server
    from mediamesh.client.inference.shared_memory import SharedTensor
    from mediamesh.wire.infer_request import InferRequest

__all__ = ["Sequence"]


class Sequence:
    """One sequence, on one server; its requests run one after the other.

    Get it from :meth:`InferenceClient.sequence`, as an async context manager. The server keeps its state until the
    request that says ``last=True``; a sequence that is left without one ends when the server finds it idle: the
    protocol has no other word for that.
    """

    def __init__(self, pool: Pool, model: str, version: str, priority: int) -> None:
        self._pool, self._model, self._version, self._priority = pool, model, version, priority
        self._server: Server | None = None
        self._key = 0
        self._turn = asyncio.Lock()
        self._over = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = self._over or "was left"

    async def infer(
        self,
        inputs: Inputs,
        *,
        last: bool = False,
        outputs: Outputs = (),
        timeout: float | None = None,
        parameters: Parameters | None = None,
    ) -> Answer:
        """Run the next request of the sequence; arguments and errors as :meth:`InferenceClient.infer` has them.

        Only the first request is tried on another server: later ones need the state that is where the first ran. One
        that fails without an answer ends the sequence, for nobody knows whether the state has it. One that is refused,
        or whose run fails, changes nothing and can be sent again; where it is the first, that ends the sequence.

        Args:
            inputs: A tensor for every input of the model.
            last: Ends the sequence.
            outputs: Names of the wanted outputs; none asks for all.
            timeout: Seconds to wait for the answer.
            parameters: Further parameters of the request.

        Raises:
            FailedPrecondition: the sequence has ended.
        """
        request = request_of(
            self._model,
            inputs,
            version=self._version,
            outputs=outputs,
            priority=self._priority,
            parameters=parameters,
        )
        request.message.parameters["sequence_end"].bool_param = last
        async with deadline(timeout, self._model) as ends, self._turn:
            if self._over:
                raise FailedPrecondition(f"The sequence of model {self._model} {self._over}.", model=self._model)
            try:
                shared = shared_of(inputs, outputs)
                answer = await (self._next if self._server else self._first)(request, shared, ends)
            except BaseException as error:
                # A refusal, or a run that failed, has changed nothing; but then there is no sequence without its first.
                if self._server is None or not is_answer(error):
                    self._over = "broke off"
                raise
            if last:
                self._over = "has ended"
            return answer

    async def _first(self, request: InferRequest, shared: list[SharedTensor], ends: float | None) -> Answer:
        request.message.parameters["sequence_start"].bool_param = True
        search = Search(self._pool, self._model, self._version)
        while True:
            server = search.server()
            # Another id for every try: a server that has begun the sequence before it failed has one of another name.
            self._key = secrets.randbits(62) + 1
            try:
                answer = await self._ask(server, request, shared, ends)
            except MeshError as error:
                await search.failed(server, error)
            else:
                self._server = server
                return answer

    async def _next(self, request: InferRequest, shared: list[SharedTensor], ends: float | None) -> Answer:
        assert self._server is not None  # noqa: S101 - the first request set it
        return await self._ask(self._server, request, shared, ends)

    async def _ask(
        self, server: Server, request: InferRequest, shared: list[SharedTensor], ends: float | None
    ) -> Answer:
        request.message.parameters["sequence_id"].int64_param = self._key
        with server.working(), answered(shared):
            return Answer(await server.ask(request, left(ends)))
