"""Talks to agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.agent_service_pb2 import DescribeRequest, RunRequest
from mediamesh.api.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from mediamesh.api.agent.v1.agent_service_pb2 import DescribeResponse, OpenRun, RunResponse

__all__ = ["AgentClient"]

Frames = AsyncIterable[RunRequest] | Iterable[RunRequest]


class AgentClient:
    """The agents of one server.

    Args:
        channel: From ``mediamesh.client.connect``.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = AgentServiceStub(channel)

    async def describe(self, agent_id: str = "", *, timeout: float | None = None) -> DescribeResponse:
        """Return the manifest of one agent, or of all, and what the server can do.

        Raises:
            NotFound: the server has no such agent.
        """
        return await self._stub.Describe(DescribeRequest(agent_id=agent_id), timeout=timeout)

    async def run(
        self,
        open: OpenRun,  # noqa: A002 - named as the frame is
        frames: Frames = (),
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[RunResponse]:
        """Run an agent once and yield its frames, the last being ``finished``.

        Leaving the iteration early cancels the run; ``contextlib.aclosing`` does it at once. ``frames`` are the chunks
        and ends of stream inputs, taken as fast as the agent reads them; what they raise is raised here.

        Raises:
            InvalidRequest: an input or a parameter is not what the agent's manifest says.
            AgentFailed: the agent failed, or broke its manifest.
            Overloaded: the server is running as much as it can.
        """
        requests = _Requests(open, frames)
        call = self._stub.Run(requests.send(), timeout=timeout)
        try:
            async for response in call:
                yield response
        except (MeshError, asyncio.CancelledError) as error:
            # grpc cancels a call whose frames fail; that is to be told from a task that is cancelled.
            task = asyncio.current_task()
            if requests.failure is None or (task is not None and task.cancelling()):
                raise
            raise requests.failure from error
        finally:
            call.cancel()


class _Requests:
    """The frames of a run; keeps their failure, which grpc only turns into a cancelled call."""

    def __init__(self, open_run: OpenRun, frames: Frames) -> None:
        self._open, self._frames = open_run, frames
        self.failure: Exception | None = None

    async def send(self) -> AsyncIterator[RunRequest]:
        yield RunRequest(open=self._open)
        try:
            if isinstance(self._frames, AsyncIterable):
                async for frame in self._frames:
                    yield frame
            else:
                for frame in self._frames:
                    yield frame
        except Exception as error:
            self.failure = error
            raise
