"""One node that runs an agent: its streams are published, its tries are counted, its result may come from the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from google.protobuf import duration_pb2

from mediamesh.api.agent.v1 import agent_service_pb2, pin_pb2
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1.stream_pb2 import OVERFLOW_POLICY_DROP_OLDEST, StreamLimits
from mediamesh.orchestrator.execution.agent_run import AgentRun
from mediamesh.orchestrator.execution.feed import Feed
from mediamesh.wire.errors import MeshError, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.client.agents import AgentClient
    from mediamesh.orchestrator.execution.broadcast import Broadcast
    from mediamesh.orchestrator.execution.cache import ResultCache
    from mediamesh.orchestrator.execution.inbox import Bounds, Inbox
    from mediamesh.orchestrator.execution.journal import Journal
    from mediamesh.orchestrator.execution.outbox import Outbox
    from mediamesh.orchestrator.execution.retry import Retries
    from mediamesh.orchestrator.storage import RunMedia

__all__ = ["AgentNodes", "Agents", "failure_at"]

# A stream outlives the node that makes it by the time that its end takes.
_LINGER_SECONDS, _DAY_SECONDS = 10, 86_400
_LEAST_HEARTBEAT_MS = 100  # the contract's, for streams


class Agents(Protocol):
    """Where agents are."""

    def client(self, agent_id: str, attempt: int) -> AgentClient:
        """Return a server that runs the agent, another one at another attempt where there are several."""
        ...

    def agents(self) -> Mapping[str, Manifest]:
        """Return every agent that is known, by id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentNodes:
    """Runs nodes of one run at their agents.

    Attributes:
        agents: Where agents are.
        journal: Told of everything that happens.
        broadcast: Where stream pins are published.
        media: Where media goes.
        retries: When to try again where the flow does not say it.
        bounds: How much of what was sent on stream inputs is kept for another try.
        cache: Where results of before are.
    """

    agents: Agents
    journal: Journal
    broadcast: Broadcast
    media: RunMedia
    retries: Retries
    bounds: Bounds
    cache: ResultCache

    async def run(self, node: FlowNode, inbox: Inbox, outbox: Outbox, *, before: int, seconds: float) -> bool:
        """Run a node to its end, or give what the same inputs gave before.

        Args:
            node: The node.
            inbox: Its inputs, which are ready.
            outbox: Its outputs.
            before: How often it was tried already, by an orchestrator that is gone.
            seconds: How long it may run.

        Returns:
            Whether its outputs came from the cache.

        Raises:
            MeshError: the agent's own error, AgentFailed when it breaks the contract, Unavailable when it is not there.
        """
        self.publish(node, [pin.name for pin in node.output_pins], seconds)
        opening = self._opening(node, inbox, before + 1)
        place = self.cache.place(self.agents.agents().get(node.type), node, opening)
        if place is not None and (frames := await self.cache.find(place, self.media)) is not None:
            await self._started(node, before + 1)
            await outbox.repeat(frames)
            return True
        given = outbox.capture(self.cache.max_bytes) if place is not None else None
        async with Feed(inbox, self.bounds) as feed:
            await self._tries(node, opening, feed, outbox, seconds)
        if place is not None and given is not None:
            await self.cache.keep(place, given)
        return False

    async def _tries(self, node: FlowNode, opening: OpenRun, feed: Feed, outbox: Outbox, seconds: float) -> None:
        end, failures, retries = monotonic() + seconds, 0, self.retries.of(node)
        while True:
            try:
                return await self._try(node, opening, feed, outbox, end - monotonic())
            except _Passing as passing:
                failures += 1
                error = passing.error
                if (pause := retries.pause(failures, error)) is None:
                    raise _final(node, error) from error
            await self.journal.record(node.id, node_retry=_retry(error, opening.context.attempt, pause))
            await asyncio.sleep(pause)
            opening.context.attempt += 1

    async def _try(self, node: FlowNode, opening: OpenRun, feed: Feed, outbox: Outbox, seconds: float) -> None:
        """Run a node once.

        Raises:
            _Passing: it failed, and another try would lose nothing: nothing was sent that is gone, and nothing came
                that would come twice.
        """
        attempt = opening.context.attempt
        await self._started(node, attempt)
        work = AgentRun(opening, feed=feed, outbox=outbox, journal=self.journal, media=self.media)
        try:
            client = self.agents.client(node.type, attempt)
            await work.run(client, timeout=max(0.001, seconds))
        except (MeshError, asyncio.CancelledError) as error:
            await feed.end_try()
            told = failure_at(node, error)
            # A stream that broke off on its way here breaks off again.
            if not work.pristine or not feed.is_whole or told is feed.failure:
                raise _final(node, told) from error
            raise _Passing(told) from error

    async def _started(self, node: FlowNode, attempt: int) -> None:
        started = execution_pb2.NodeStarted(agent_id=node.type, attempt=attempt)
        await self.journal.record(node.id, node_started=started)

    def publish(self, node: FlowNode, pins: list[str], seconds: float) -> None:
        """Open those of the pins that stream; they live as long as the node may run."""
        limits = StreamLimits(overflow=OVERFLOW_POLICY_DROP_OLDEST)
        limits.max_duration.FromNanoseconds(round(min(seconds + _LINGER_SECONDS, _DAY_SECONDS) * 1e9))
        manifest = self.agents.agents().get(node.type)
        if manifest is not None and (pause_ms := manifest.response.heartbeat_interval_ms):
            limits.heartbeat_interval.FromMilliseconds(max(pause_ms, _LEAST_HEARTBEAT_MS))
        for pin in node.output_pins:
            if pin.type == pin_pb2.PIN_TYPE_STREAM and pin.name in pins:
                self.broadcast.start(node.id, pin.name, limits)

    def _opening(self, node: FlowNode, inbox: Inbox, attempt: int) -> OpenRun:
        execution = self.journal.execution
        return OpenRun(
            agent_id=node.type,
            context=agent_service_pb2.RunContext(
                workspace_id=execution.workspace_id,
                flow_id=execution.flow.id,
                execution_id=execution.execution_id,
                node_id=node.id,
                attempt=attempt,
            ),
            inputs=inbox.values,
            stream_inputs=sorted(inbox.pipes),
            params=node.params,
            response_mode=node.response_mode,
        )


class _Passing(Exception):  # noqa: N818 - it is on its way to another try, and no error yet
    """A try failed that may be made again."""

    def __init__(self, error: MeshError) -> None:
        super().__init__(error.text)
        self.error = error


def failure_at(node: FlowNode, error: MeshError | asyncio.CancelledError) -> MeshError:
    """Return what went wrong at the agent of a node.

    Raises:
        asyncio.CancelledError: it is this task that is cancelled; grpc raises the same where the other side did it.
    """
    if isinstance(error, MeshError):
        return error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    return Unavailable(f"The server of the agent `{node.type}` broke off its run.")


def _final(node: FlowNode, error: MeshError) -> MeshError:
    if type(error) is Unavailable:
        return Unavailable(f"The agent `{node.type}` could not run: {error.text}")
    return error


def _retry(error: MeshError, attempt: int, pause: float) -> execution_pb2.NodeRetry:
    wait = duration_pb2.Duration()
    wait.FromNanoseconds(round(pause * 1e9))
    return execution_pb2.NodeRetry(error=error.to_status(), attempt=attempt, pause=wait)
