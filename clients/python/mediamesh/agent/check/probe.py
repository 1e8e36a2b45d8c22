"""Calls as the checks make them: frame by frame, every status kept as it came, and nothing waited for without end."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2

from mediamesh.agent.check.findings import Broken
from mediamesh.api.agent.v1.agent_service_pb2 import DescribeRequest, RunRequest, RunResponse
from mediamesh.api.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mediamesh.client.channel import CORE_FAILURE, MAX_MESSAGE_BYTES, FirstStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from mediamesh.api.agent.v1.agent_service_pb2 import DescribeResponse

    RunCall = grpc.aio.StreamStreamCall[RunRequest, RunResponse]

__all__ = ["MOST_BYTES", "POLL_SECONDS", "Outcome", "Probe", "probing"]

MOST_BYTES = 128 * 1024 * 1024
"""What a run on made-up inputs may give before it counts as a flood."""
POLL_SECONDS = 0.02
"""How long to wait before a server is asked again."""
_STATUS_KEY = "grpc-status-details-bin"
_PAUSE_SECONDS = 0.1


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a run went.

    Attributes:
        what: What the run was about, for sentences.
        frames: What the agent gave.
        status: What the call ended with; None where it did not end in time.
        details: Whether the status came with details, so that its message is not only a text.
        seconds: From the first frame to the end.
        size: Bytes of all frames.
    """

    what: str = ""
    frames: list[RunResponse] = field(default_factory=list)
    status: status_pb2.Status | None = None
    details: bool = False
    seconds: float = 0.0
    size: int = 0

    @property
    def code(self) -> grpc.StatusCode | None:
        """The code of the status; None where the call did not end in time."""
        if self.status is None:
            return None
        return next((code for code in grpc.StatusCode if code.value[0] == self.status.code), grpc.StatusCode.UNKNOWN)

    @property
    def succeeded(self) -> bool:
        """Whether the call ended with OK, whatever came before."""
        return self.code is grpc.StatusCode.OK

    def describe(self) -> str:
        """Return how the call ended, in words that go on from "the run"."""
        if self.status is None:
            if self.size > MOST_BYTES:
                return f"gave more than {MOST_BYTES >> 20} MiB and did not end"
            return f"did not end within {self.seconds:.3g} s"
        if self.succeeded:
            return "ended with OK"
        return f"ended with {self.code.name if self.code else 'UNKNOWN'}: {self.status.message[:200]!r}"


class Probe:
    """One server under test.

    Attributes:
        failures: Every run that did not end with OK, for the checks of how errors look.
        seconds: How long anything may take.
    """

    def __init__(self, channel: grpc.aio.Channel, seconds: float) -> None:
        self.channel, self.seconds = channel, seconds
        self.failures: list[Outcome] = []
        self._stub = AgentServiceStub(channel)

    async def describe(self, agent_id: str = "") -> DescribeResponse:
        """Ask for the agents.

        Raises:
            grpc.aio.AioRpcError: the server refused, or did not answer in time.
        """
        return await self._stub.Describe(DescribeRequest(agent_id=agent_id), timeout=self.seconds)

    async def active_runs(self) -> int | None:
        """Return how many runs are in progress; None where the server does not tell."""
        capabilities = (await self.describe()).capabilities
        return capabilities.active_runs if capabilities.HasField("active_runs") else None

    async def idle_within(self, seconds: float, before: int) -> float | None:
        """Wait until no more runs than before are in progress; returns after how many seconds, None when too late.

        What counts is how often it was asked: a machine that stands still meanwhile is no fault of the server.
        """
        begin = time.monotonic()
        for _ in range(round(seconds / POLL_SECONDS) + 1):
            now = time.monotonic() - begin
            if (await self.active_runs() or 0) <= before:
                return now
            await asyncio.sleep(POLL_SECONDS)
        return None

    async def busy(self, before: int) -> bool:
        """Wait until more runs than before are in progress; returns whether they were in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                while (await self.active_runs() or 0) <= before:  # noqa: ASYNC110 - it is to be asked
                    await asyncio.sleep(POLL_SECONDS)
                return True
        return False

    @asynccontextmanager
    async def call(self, *, deadline: float | None = None) -> AsyncGenerator[RunCall]:
        """Open a run without sending anything; it is cancelled when the block ends.

        Args:
            deadline: Seconds that the agent is told and the caller does not enforce.
        """
        metadata = (("grpc-timeout", f"{round(deadline * 1000)}m"),) if deadline is not None else ()
        call: Any = self._stub.Run(metadata=metadata)
        try:
            yield call
        finally:
            call.cancel()

    async def run(
        self,
        frames: Sequence[RunRequest],
        *,
        what: str = "",
        half_close: bool = True,
        deadline: float | None = None,
    ) -> Outcome:
        """Send the frames, and read until the call ends or its time is over."""
        outcome = await self._run(frames, half_close=half_close, deadline=deadline)
        if outcome.status is not None and outcome.status.message == CORE_FAILURE:
            # gRPC could not write to a call that was over, and lost how it ended: once more, without hurry.
            outcome = await self._run(frames, half_close=half_close, deadline=deadline, pause=_PAUSE_SECONDS)
        outcome.what = what
        if outcome.status is not None and not outcome.succeeded:
            self.failures.append(outcome)
        return outcome

    async def _run(
        self, frames: Sequence[RunRequest], *, half_close: bool, deadline: float | None, pause: float = 0.0
    ) -> Outcome:
        outcome = Outcome()
        begin = time.monotonic()
        async with self.call(deadline=deadline) as call, asyncio.TaskGroup() as tasks:
            first = FirstStatus(call)
            writing = tasks.create_task(_write(call, frames, half_close=half_close, pause=pause))
            try:
                async with asyncio.timeout(self.seconds):
                    await _read(call, outcome)
            except TimeoutError:
                call.cancel()
            except grpc.aio.AioRpcError as failure:
                _note(outcome, first.failure or failure)
            finally:
                writing.cancel()
        outcome.seconds = time.monotonic() - begin
        return outcome


@asynccontextmanager
async def probing(target: str, seconds: float) -> AsyncGenerator[Probe]:
    """Open a probe on ``host:port``.

    Raises:
        Broken: nothing listens there, or what does is no gRPC server.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    async with grpc.aio.insecure_channel(target.removeprefix("http://"), options=options) as channel:
        try:
            async with asyncio.timeout(seconds):
                await channel.channel_ready()
        except TimeoutError:
            raise Broken(f"No gRPC server answered at {target} within {seconds:g} s.") from None
        yield Probe(channel, seconds)


async def _write(call: RunCall, frames: Sequence[RunRequest], *, half_close: bool, pause: float) -> None:
    # A call that has ended takes no more frames; the reader finds out how it ended.
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for frame in frames:
            await call.write(frame)
            await asyncio.sleep(pause)
        if half_close:
            await call.done_writing()
        else:
            await call.wait_for_connection()


async def _read(call: RunCall, outcome: Outcome) -> None:
    while isinstance(frame := await call.read(), RunResponse):
        outcome.size += frame.ByteSize()
        if outcome.size > MOST_BYTES:
            call.cancel()
            return
        outcome.frames.append(frame)
    outcome.status = status_pb2.Status(code=0)


def _note(outcome: Outcome, failure: grpc.aio.AioRpcError) -> None:
    code, text = failure.code(), failure.details() or ""
    outcome.status = status_pb2.Status(code=code.value[0], message=text)
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            outcome.status = status_pb2.Status.FromString(value)
            outcome.details = True
