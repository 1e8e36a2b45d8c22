"""What a socket is for: a stream that is read or published, or the events of a run."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from mediamesh.api.agent.v1.agent_service_pb2 import GoAway
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.api.stream.v1.stream_pb2 import StreamGoAway
from mediamesh.edge.publishing import Publishing
from mediamesh.edge.query import Query, number
from mediamesh.edge.race import race
from mediamesh.edge.socket import AGAINST_RULES, BadFrame
from mediamesh.edge.subscribing import Subscribing
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.json import to_object
from mediamesh.wire.stream_json import frame_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
    from mediamesh.client.flows import FlowClient
    from mediamesh.edge.socket import Socket
    from mediamesh.edge.spelled import Spelled
    from mediamesh.wire.errors import MeshError

__all__ = ["RunTalk", "StreamTalk", "Talk"]

_REASON = "The server is going away; open the socket again."


class Talk(Protocol):
    """What goes over one socket.

    Attributes:
        kind: A word for metrics and traces.
        subject: Id of what it is about.
    """

    kind: str
    subject: str

    async def run(self, socket: Socket) -> bool:
        """Talk to the end; return whether it goes on elsewhere.

        Raises:
            BadFrame: a frame that came is against the rules.
            MeshError: it cannot go on.
        """
        ...

    def going_away(self) -> Any:
        """Return the last object when the server goes away: where to go on."""
        ...

    def failed(self, error: MeshError) -> Any:
        """Return an error as the last object; it tells how far the talk was."""
        ...


class StreamTalk:
    """A stream is read, or published; see `Talk`."""

    def __init__(
        self, stream_id: str, params: Mapping[str, str], *, stub: StreamServiceStub, spelled: Spelled, patience: float
    ) -> None:
        self.kind = "publish" if params.get("publish") in {"1", "true"} else "subscribe"
        self.subject = stream_id
        self._params = params
        self._stub = stub
        self._spelled = spelled
        self._patience = patience
        self._conversation: Subscribing | Publishing | None = None

    async def run(self, socket: Socket) -> bool:
        """See `Talk.run`."""
        query = Query.of(self.subject, self._params)
        if query.opening is not None:
            publishing = self._conversation = Publishing(socket, query.opening, self._stub)
            await publishing.run()
            return publishing.has_gone_away
        self._conversation = Subscribing(socket, query, self._stub, self._spelled, patience=self._patience)
        await self._conversation.run()
        return False

    def going_away(self) -> Any:
        """See `Talk.going_away`."""
        token = str(self._conversation.position) if self._conversation else ""
        return frame_object(self.subject, StreamGoAway(reason=_REASON, resume_token=token))

    def failed(self, error: MeshError) -> Any:
        """See `Talk.failed`."""
        error.metadata.setdefault("stream_id", self.subject)
        if self._conversation is not None:
            error.metadata.setdefault("sequence", str(self._conversation.position))
        return frame_object(self.subject, error)


class RunTalk:
    """The events of a run from any position, each a frame of JSON, until its last one; see `Talk`."""

    kind = "watch"

    def __init__(self, execution_id: str, params: Mapping[str, str], *, flows: FlowClient, patience: float) -> None:
        self.subject = execution_id
        self._params = params
        self._flows = flows
        self._patience = patience
        self._position: int | None = None

    async def run(self, socket: Socket) -> bool:
        """See `Talk.run`."""
        self._position = number(self._params, "after", execution_id=self.subject)
        await race(self._forward(socket, self._position), self._listen(socket))
        return False

    async def _forward(self, socket: Socket, after: int) -> None:
        # A socket that reads slowly holds the watch back, and so the call behind it.
        async with aclosing(self._flows.watch(self.subject, after, patience=self._patience)) as events:
            async for event in events:
                await socket.send(to_object(event))
                self._position = max(self._position or 0, event.sequence, event.gap.last_sequence)

    async def _listen(self, socket: Socket) -> None:
        if await socket.receive() is not None:
            error = InvalidRequest.of_field("", "a socket of a run takes no frames", execution_id=self.subject)
            raise BadFrame(error, AGAINST_RULES)

    def going_away(self) -> Any:
        """See `Talk.going_away`."""
        away = GoAway(reason=_REASON, resume_token=str(self._position or 0))
        return to_object(ExecutionEvent(execution_id=self.subject, go_away=away))

    def failed(self, error: MeshError) -> Any:
        """See `Talk.failed`."""
        error.metadata.setdefault("execution_id", self.subject)
        if self._position is not None:
            error.metadata.setdefault("sequence", str(self._position))
        return {"executionId": self.subject, "error": to_object(error.to_status())}
