"""Runs agents: opens them, bounds what runs at once, and turns one call's frames into one run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

from mediamesh.agent.inbox import Inbox
from mediamesh.agent.media import MediaSource
from mediamesh.agent.opening import check_opening
from mediamesh.agent.output import Outputs
from mediamesh.agent.pipe import Pipe
from mediamesh.agent.response import agreed
from mediamesh.agent.run import Run
from mediamesh.wire.errors import (
    AgentFailed,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    NotFound,
    Overloaded,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from mediamesh.agent.agent import Agent
    from mediamesh.agent.output import Output
    from mediamesh.agent.settings import AgentSettings
    from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, RunRequest, RunResponse
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.client.media import MediaClient

__all__ = ["ActiveRun", "AgentHost", "hosting"]

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
# What waits for a slow caller: few frames, as each media frame may have a megabyte.
_PENDING_FRAMES, _PENDING_BYTES = 32, 2 * 1024 * 1024


class ActiveRun:
    """One run in progress; iterate over its frames."""

    def __init__(self, pipe: Pipe[RunResponse], task: asyncio.Task[None]) -> None:
        self._pipe, self._task = pipe, task

    def cancel(self) -> None:
        """Cancel the run, if it still goes on."""
        self._task.cancel()

    def __aiter__(self) -> AsyncIterator[RunResponse]:
        return self._pipe


@asynccontextmanager
async def hosting(
    settings: AgentSettings, agents: Mapping[str, tuple[Agent, Manifest]], media: MediaClient | None
) -> AsyncGenerator[AgentHost]:
    """Open the agents, and close them when the block ends; runs that still go on are cancelled first."""
    async with AsyncExitStack() as stack:
        for agent, _ in agents.values():
            await stack.enter_async_context(agent.lifespan())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        host = AgentHost(settings, agents, media, tasks)
        stack.callback(host.cancel_all)
        yield host


class AgentHost:
    """The agents of one server, by id.

    Attributes:
        spent: Set when the last of the runs that the server is for has ended.
    """

    def __init__(
        self,
        settings: AgentSettings,
        agents: Mapping[str, tuple[Agent, Manifest]],
        media: MediaClient | None,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._agents = agents
        self._media = MediaSource(media, max_bytes=settings.max_media_bytes)
        self._most = settings.max_concurrent_runs
        self._left = settings.max_runs or None
        self.spent = asyncio.Event()
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()

    def manifests(self, agent_id: str = "") -> list[Manifest]:
        """Return one manifest, or all.

        Raises:
            NotFound: this server has no such agent.
        """
        return [self._find(agent_id)[1]] if agent_id else [manifest for _, manifest in self._agents.values()]

    @property
    def active(self) -> int:
        """How many runs are in progress, those included that were cancelled and have not ended yet."""
        return len(self._running)

    def start(self, frames: AsyncIterator[RunRequest], seconds: float | None) -> ActiveRun:
        """Start a run whose caller gave it so many seconds.

        It has a task of its own, as a call that is cancelled while it sends would not reach an agent that works.

        Raises:
            Overloaded: as many runs as the server takes are in progress.
            Unavailable: it has done all the runs that it was for.
        """
        if len(self._running) >= self._most:
            raise Overloaded.retry(
                f"This agent server has {self._most} runs in progress, its limit (max_concurrent_runs).",
                _RETRY_SECONDS,
                limit=self._most,
            )
        if self._left is not None:
            if not self._left:
                raise Unavailable("This agent server has done all the runs that it was for (max_runs); run elsewhere.")
            self._left -= 1
        pipe: Pipe[RunResponse] = Pipe(messages=_PENDING_FRAMES, size_bytes=_PENDING_BYTES)
        task = self._tasks.create_task(self._drive(frames, pipe, seconds))
        self._running.add(task)
        task.add_done_callback(self._over)
        return ActiveRun(pipe, task)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not (self._left is None or self._left or self._running):
            self.spent.set()

    def cancel_all(self) -> None:
        """Cancel every run."""
        for task in self._running:
            task.cancel()

    async def _drive(self, frames: AsyncIterator[RunRequest], pipe: Pipe[RunResponse], seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._perform(frames, pipe, limit.when())
        except TimeoutError:
            pipe.close(DeadlineExceeded(f"The agent did not finish within the {seconds:.3g} s its caller gave it."))
        except asyncio.CancelledError:
            pipe.close(Cancelled("The run was cancelled."))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it, whatever it is
            pipe.close(_cause(error))
        else:
            pipe.close()

    async def _perform(
        self, frames: AsyncIterator[RunRequest], pipe: Pipe[RunResponse], deadline: float | None
    ) -> None:
        open_run = await _opening_frame(frames)
        agent, manifest = self._find(open_run.agent_id)
        response = agreed(manifest, open_run)
        opening = check_opening(manifest, open_run)
        trace.get_current_span().set_attribute("mediamesh.agent", manifest.id)
        inbox = Inbox(manifest, open_run.stream_inputs)
        outputs = Outputs(manifest, pipe)
        run = Run(
            context=open_run.context,
            opening=opening,
            inbox=inbox,
            outputs=outputs,
            response=response,
            media=self._media,
            deadline=deadline,
        )
        async with asyncio.TaskGroup() as tasks:
            # Its failure cancels the agent, which runs in this very task.
            filling = tasks.create_task(inbox.fill(frames))
            limit = asyncio.timeout(response.max_seconds)
            try:
                async with limit:
                    await _process(agent, manifest, run, outputs)
            except TimeoutError as error:
                raise response.outlived() from error
            filling.cancel()

    def _find(self, agent_id: str) -> tuple[Agent, Manifest]:
        if found := self._agents.get(agent_id):
            return found
        raise NotFound(
            f"There is no agent {agent_id!r} on this server; it has {', '.join(self._agents)}.", agent=agent_id
        )


async def _opening_frame(frames: AsyncIterator[RunRequest]) -> OpenRun:
    first = await anext(frames, None)
    if first is None or not first.HasField("open"):
        raise InvalidRequest.of_field("open", "must be the first frame of a run")
    return first.open


async def _process(agent: Agent, manifest: Manifest, run: Run, outputs: Outputs) -> None:
    """Let the agent work; whatever goes wrong in it is AgentFailed, unless it raises an error of the tree itself."""
    try:
        given = await agent.process(run)
        await outputs.finish(_checked_outputs(given))
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, MeshError):
            raise cause from error
        raise _failure(manifest, cause) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _failure(manifest, error) from error  # nobody cancelled the run: something in the agent did


def _failure(manifest: Manifest, cause: BaseException) -> AgentFailed:
    name = type(cause).__name__
    _LOG.error("%s failed", manifest.id, exc_info=cause)
    return AgentFailed(f"{manifest.id} failed: {name}: {cause}"[:1000], agent=manifest.id, exception=name)


def _checked_outputs(given: object) -> Mapping[str, Output]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"process returns a mapping of outputs by pin, not {type(given).__name__}")
    return given


def _cause(error: BaseException) -> BaseException:
    """Return what is behind a group of errors: the first of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
