"""All sockets of this server: who may open one, what it is for, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from starlette.responses import PlainTextResponse

from mediamesh.edge.metrics import COUNTS
from mediamesh.edge.race import race
from mediamesh.edge.socket import GOING_AWAY, NORMAL, BadFrame, Socket, code_of
from mediamesh.edge.spelled import Spelled
from mediamesh.edge.talks import RunTalk, StreamTalk
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.websockets import WebSocket

    from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
    from mediamesh.client.flows import FlowClient
    from mediamesh.edge.settings import Settings
    from mediamesh.edge.talks import Talk

__all__ = ["Sockets"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.edge")


class _Leaving(Exception):  # noqa: N818 - nothing is wrong
    pass


class Sockets:
    """Serves WebSockets by the streams servers and the orchestrators.

    Args:
        settings: How sockets are bounded.
        stub: The streams servers.
        flows: The orchestrators.
    """

    def __init__(self, settings: Settings, stub: StreamServiceStub, flows: FlowClient) -> None:
        self._settings = settings
        self._stub = stub
        self._flows = flows
        self._spelled = Spelled()
        self._origins = re.compile(settings.cors_origins)
        self._leaving = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._open = 0

    @property
    def is_leaving(self) -> bool:
        """Whether no more sockets are taken."""
        return self._leaving.is_set()

    async def leave(self, seconds: float) -> None:
        """Tell every socket where to go on, close it, and wait until all are closed, for so many seconds at most."""
        self._leaving.set()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            _LOG.warning("%d sockets did not close within %g s", self._open, seconds)

    async def serve_stream(self, websocket: WebSocket) -> None:
        """Serve a socket of a stream, from its upgrade to its end."""
        talk = StreamTalk(
            websocket.path_params["stream_id"],
            websocket.query_params,
            stub=self._stub,
            spelled=self._spelled,
            patience=self._settings.patience_seconds,
        )
        await self._admit(websocket, talk)

    async def serve_run(self, websocket: WebSocket) -> None:
        """Serve a socket of a run, likewise."""
        talk = RunTalk(
            websocket.path_params["execution_id"],
            websocket.query_params,
            flows=self._flows,
            patience=self._settings.patience_seconds,
        )
        await self._admit(websocket, talk)

    async def _admit(self, websocket: WebSocket, talk: Talk) -> None:
        if refusal := self._refusal(websocket):
            COUNTS.refused += 1
            await websocket.send_denial_response(refusal)
            return
        self._open += 1
        self._empty.clear()
        try:
            await self._serve(websocket, talk)
        finally:
            self._open -= 1
            if not self._open:
                self._empty.set()

    def _refusal(self, websocket: WebSocket) -> PlainTextResponse | None:
        headers = websocket.headers
        origin = headers.get("origin", "")
        # A page that the door itself has served may always.
        is_own = origin.partition("://")[2] == headers.get("host", "")
        if origin and not is_own and not self._origins.fullmatch(origin):
            return PlainTextResponse("Pages of this origin may not open sockets here.\n", 403)
        if self.is_leaving:
            return PlainTextResponse("The server is going away.\n", 503, {"retry-after": "1"})
        if self._open >= self._settings.max_sockets:
            return PlainTextResponse(f"{self._open} sockets are open, as many as may.\n", 503, {"retry-after": "1"})
        return None

    async def _serve(self, websocket: WebSocket, talk: Talk) -> None:
        parent = propagate.extract(dict(websocket.headers))
        with _TRACER.start_as_current_span(
            f"websocket {talk.kind}", context=parent, kind=trace.SpanKind.SERVER
        ) as span:
            span.set_attribute("execution_id" if isinstance(talk, RunTalk) else "stream_id", talk.subject)
            COUNTS.open[talk.kind] += 1
            try:
                await websocket.accept()
                await self._converse(Socket(websocket), talk)
            finally:
                COUNTS.open[talk.kind] -= 1

    async def _converse(self, socket: Socket, talk: Talk) -> None:
        """Do what a socket is for, and end it with the code and the last words that tell why."""
        code, last = NORMAL, None
        try:
            if await self._unless_leaving(talk.run(socket)):
                code = GOING_AWAY
        except _Leaving:
            code, last = GOING_AWAY, talk.going_away()
        except BadFrame as bad:
            code, last = bad.code, talk.failed(bad.error)
        except MeshError as error:
            code, last = code_of(error), talk.failed(error)
        except Exception:  # noqa: BLE001 - a socket is where every error ends
            trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
            _LOG.exception("a socket of %s failed", talk.subject)
            failure = MeshError(f"The server failed; its log has the cause under trace {trace_id}.", trace_id=trace_id)
            code, last = code_of(failure), talk.failed(failure)
        await socket.close(code, last)

    async def _unless_leaving(self, talking: Coroutine[Any, Any, bool]) -> bool:
        elsewhere = False

        async def talk() -> None:
            nonlocal elsewhere
            elsewhere = await talking

        await race(talk(), self._left())
        return elsewhere

    async def _left(self) -> None:
        await self._leaving.wait()
        raise _Leaving
