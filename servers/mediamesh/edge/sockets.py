"""All sockets of this server: who may open one, what it is for, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from starlette.responses import PlainTextResponse

from mediamesh.api.stream.v1.stream_pb2 import StreamGoAway
from mediamesh.edge.metrics import COUNTS
from mediamesh.edge.publishing import Publishing
from mediamesh.edge.query import Query
from mediamesh.edge.race import race
from mediamesh.edge.socket import GOING_AWAY, NORMAL, BadFrame, Socket, code_of
from mediamesh.edge.spelled import Spelled
from mediamesh.edge.subscribing import Subscribing
from mediamesh.wire.errors import MeshError
from mediamesh.wire.stream_json import frame_object

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
    from mediamesh.edge.settings import Settings

__all__ = ["Sockets"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.edge")


class _Leaving(Exception):  # noqa: N818 - nothing is wrong
    pass


class Sockets:
    """Serves WebSockets by the streams servers.

    Args:
        settings: How sockets are bounded.
        stub: The streams servers.
    """

    def __init__(self, settings: Settings, stub: StreamServiceStub) -> None:
        self._settings = settings
        self._stub = stub
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

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket, from its upgrade to its end."""
        if refusal := self._refusal(websocket):
            COUNTS.refused += 1
            await websocket.send_denial_response(refusal)
            return
        self._open += 1
        self._empty.clear()
        try:
            await self._serve(websocket)
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

    async def _serve(self, websocket: WebSocket) -> None:
        kind = "publish" if websocket.query_params.get("publish") in {"1", "true"} else "subscribe"
        parent = propagate.extract(dict(websocket.headers))
        with _TRACER.start_as_current_span(f"websocket {kind}", context=parent, kind=trace.SpanKind.SERVER) as span:
            stream_id = websocket.path_params["stream_id"]
            span.set_attribute("stream_id", stream_id)
            COUNTS.open[kind] += 1
            try:
                await websocket.accept()
                await self._converse(Socket(websocket), stream_id, websocket.query_params)
            finally:
                COUNTS.open[kind] -= 1

    async def _converse(self, socket: Socket, stream_id: str, params: Any) -> None:
        """Do what a socket is for, and end it with the code and the last words that tell why."""
        conversation: Subscribing | Publishing | None = None
        code, last = NORMAL, None
        try:
            query = Query.of(stream_id, params)
            conversation = self._conversation(socket, query)
            await race(conversation.run(), self._left())
            if isinstance(conversation, Publishing) and conversation.has_gone_away:
                code = GOING_AWAY
        except _Leaving:
            token = str(conversation.position) if conversation else ""
            leaving = StreamGoAway(reason="The server is going away; open the socket again.", resume_token=token)
            code, last = GOING_AWAY, frame_object(stream_id, leaving)
        except BadFrame as bad:
            code, last = bad.code, self._words(bad.error, stream_id, conversation)
        except MeshError as error:
            code, last = code_of(error), self._words(error, stream_id, conversation)
        except Exception:  # noqa: BLE001 - a socket is where every error ends
            trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
            _LOG.exception("a socket of the stream %s failed", stream_id)
            failure = MeshError(f"The server failed; its log has the cause under trace {trace_id}.", trace_id=trace_id)
            code, last = code_of(failure), self._words(failure, stream_id, conversation)
        await socket.close(code, last)

    def _conversation(self, socket: Socket, query: Query) -> Subscribing | Publishing:
        if query.opening is not None:
            return Publishing(socket, query.opening, self._stub)
        return Subscribing(socket, query, self._stub, self._spelled, patience=self._settings.patience_seconds)

    async def _left(self) -> None:
        await self._leaving.wait()
        raise _Leaving

    @staticmethod
    def _words(error: MeshError, stream_id: str, conversation: Subscribing | Publishing | None) -> dict[str, Any]:
        """Return an error as the last frame; it names the stream, and how far it was."""
        error.metadata.setdefault("stream_id", stream_id)
        if conversation is not None:
            error.metadata.setdefault("sequence", str(conversation.position))
        return frame_object(stream_id, error)
