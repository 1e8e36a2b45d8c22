"""One try of one node at its agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinMedia, RunResponse
from mediamesh.wire.errors import AgentFailed, MeshError, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.client.agents import AgentClient
    from mediamesh.orchestrator.execution.feed import Feed
    from mediamesh.orchestrator.execution.journal import Journal
    from mediamesh.orchestrator.execution.outbox import Outbox
    from mediamesh.orchestrator.storage import RunMedia

__all__ = ["AgentRun"]

_MEDIA_PIECES = 4


class AgentRun:
    """Sends a node's inputs to its agent, and what comes back on its way.

    Attributes:
        pristine: Whether nothing but progress came, so that nothing would come twice of another try.
    """

    def __init__(self, opening: OpenRun, *, feed: Feed, outbox: Outbox, journal: Journal, media: RunMedia) -> None:
        self.pristine = True
        self._opening = opening
        self._node_id = opening.context.node_id
        self._feed = feed
        self._outbox = outbox
        self._journal = journal
        self._media = media
        self._uploads: dict[str, _Upload] = {}

    async def run(self, client: AgentClient, *, timeout: float | None) -> None:
        """Run to the end.

        Raises:
            MeshError: the agent's own error, AgentFailed when it breaks the contract, Unavailable when it is lost.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._exchange(client, timeout, tasks)
        except BaseExceptionGroup as group:
            raise _first(group) from group

    async def _exchange(self, client: AgentClient, timeout: float | None, tasks: asyncio.TaskGroup) -> None:
        answers: AsyncGenerator[RunResponse] = client.run(self._opening, self._feed.frames(), timeout=timeout)
        async with aclosing(answers):
            await self._listen(answers, tasks)
        for pin, upload in self._uploads.items():
            await self._outbox.give(pin, await upload.result())
        await self._outbox.finish()

    async def _listen(self, answers: AsyncGenerator[RunResponse], tasks: asyncio.TaskGroup) -> None:
        async for answer in answers:
            kind = answer.WhichOneof("message")
            if kind not in {"progress", "go_away"}:
                self.pristine = False
                self._feed.forget()
            if kind == "finished":
                return
            await self._take(answer, tasks)
        raise AgentFailed("The agent ended without saying that it finished.")

    async def _take(self, answer: RunResponse, tasks: asyncio.TaskGroup) -> None:
        match answer.WhichOneof("message"):
            case "progress":
                await self._journal.record(self._node_id, node_progress=answer.progress)
            case "output":
                await self._give(answer.output.pin, answer.output.value)
            case "media":
                await self._store(answer.media, tasks)
            case "chunk":
                await self._outbox.stream(answer.chunk.pin, answer.chunk.chunk)
            case "end":
                await self._outbox.end(answer.end.pin)
            case "cost":
                await self._journal.record(self._node_id, cost=answer.cost)
            case "go_away":
                raise Unavailable(f"The agent's server is going away: {answer.go_away.reason}")
            case _:
                raise AgentFailed("The agent sent a frame that is not of the contract.")

    async def _give(self, pin: str, value: Value) -> None:
        if value.WhichOneof("kind") is None:
            raise AgentFailed(f"The agent gave nothing as a value on `{pin}`.", pin=pin)
        stored = await self._media.by_reference(self._node_id, self._outbox.pin(pin), value)
        await self._outbox.give(pin, stored)

    async def _store(self, piece: PinMedia, tasks: asyncio.TaskGroup) -> None:
        self._outbox.pin(piece.pin)
        upload = self._uploads.get(piece.pin)
        if upload is None:
            upload = self._uploads[piece.pin] = _Upload(piece)
            upload.start(tasks, self._media, self._node_id)
        await upload.put(piece)


class _Upload:
    """Media that arrives in pieces on one pin, stored while it arrives."""

    def __init__(self, first: PinMedia) -> None:
        self._pin = first.pin
        self._type = first.type
        self._size = 0
        self._complete = False
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_MEDIA_PIECES)
        self._stored: asyncio.Task[Value] | None = None

    def start(self, tasks: asyncio.TaskGroup, media: RunMedia, node_id: str) -> None:
        self._stored = tasks.create_task(media.upload(node_id, self._pin, self._type, self._bytes()))

    async def put(self, piece: PinMedia) -> None:
        if self._complete or piece.offset != self._size or piece.type != self._type:
            raise AgentFailed(
                f"The agent's media on `{self._pin}` goes on at byte {piece.offset} where {self._size} is next, "
                "or after its end, or as another type.",
                pin=self._pin,
            )
        self._size += len(piece.data)
        if piece.data:
            await self._pieces.put(piece.data)
        if piece.last:
            self._complete = True
            await self._pieces.put(None)

    async def result(self) -> Value:
        if not self._complete or self._stored is None:
            raise AgentFailed(f"The agent finished in the middle of the media on `{self._pin}`.", pin=self._pin)
        return await self._stored

    async def _bytes(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that a group is about; the others followed from it."""
    errors = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions]
    return next((error for error in errors if isinstance(error, MeshError)), errors[0])
