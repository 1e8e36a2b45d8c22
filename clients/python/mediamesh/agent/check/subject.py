"""One agent under test: what it says of itself, a run that it finishes, and the ways to hold it to its word."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from mediamesh.agent.check.findings import Broken, Unclear
from mediamesh.agent.check.judge import Judgement, judge
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, RunRequest
from mediamesh.api.agent.v1.pin_pb2 import PinType

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mediamesh.agent.check.material import Sample
    from mediamesh.agent.check.probe import Outcome, Probe
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["Subject"]

_HELD_SECONDS = 0.5
_INVALID = frozenset({grpc.StatusCode.INVALID_ARGUMENT})


@dataclass(slots=True, kw_only=True)
class Subject:
    """An agent, and what the checks before have found out about it.

    Attributes:
        probe: Its server.
        manifest: What it says of itself.
        sample: A run that it finishes.
        outcome: How that run went.
    """

    probe: Probe
    manifest: Manifest
    sample: Sample
    outcome: Outcome
    _holds: bool | None = field(default=None, init=False)
    _judgement: Judgement | None = field(default=None, init=False)

    @property
    def judgement(self) -> Judgement:
        """What is wrong with the frames of the sample."""
        if self._judgement is None:
            self._judgement = judge(self.manifest, self.outcome.frames)
        return self._judgement

    @property
    def streams(self) -> list[Pin]:
        """The stream inputs that the sample feeds."""
        fed = set(self.sample.opening.stream_inputs)
        return [pin for pin in self.manifest.inputs if pin.name in fed]

    @property
    def gives_streams(self) -> bool:
        """Whether any output is a stream."""
        return any(pin.type == PinType.PIN_TYPE_STREAM for pin in self.manifest.outputs)

    def opening(self) -> OpenRun:
        """Return a copy of the sample's opening, to be changed."""
        opening = OpenRun()
        opening.CopyFrom(self.sample.opening)
        return opening

    async def refuses(
        self,
        frames: Sequence[RunRequest] | OpenRun,
        what: str,
        *,
        codes: Collection[grpc.StatusCode] = _INVALID,
        field: str = "",
        half_close: bool = True,
    ) -> Outcome:
        """See a run refused.

        Args:
            frames: What to send; an opening is followed by the frames of the sample.
            what: What is wrong with them, in words that follow "a run with".
            codes: Codes that the contract has for it.
            field: The field that the status must name; any when empty.
            half_close: Whether to tell the agent that nothing more comes.

        Raises:
            Broken: it is not refused, or not so.
        """
        if isinstance(frames, OpenRun):
            frames = [RunRequest(open=frames), *self.sample.frames]
        outcome = await self.probe.run(frames, what=what, half_close=half_close)
        wanted = " or ".join(sorted(code.name for code in codes))
        if outcome.code not in codes:
            raise Broken(f"A run with {what} {outcome.describe()}; the contract has {wanted}.")
        if outcome.frames:
            kinds = {frame.WhichOneof("message") for frame in outcome.frames} - {"progress", "chunk"}
            if "finished" in kinds:
                raise Broken(f"A run with {what} said finished before it ended with {wanted}.")
        if field and field not in str(outcome.status):
            raise Broken(f"A run with {what} was refused, and the status names no {field}.")
        return outcome

    async def holds_open(self) -> bool:
        """Return whether a run goes on for as long as its streams have no end."""
        if self._holds is None:
            self._holds = bool(self.streams) and await self._is_held()
        return self._holds

    async def _is_held(self) -> bool:
        first = [frame for frame in self.sample.frames if frame.chunk.chunk.sequence_number == 1]
        async with self.probe.call() as call:
            for frame in (RunRequest(open=self.opening()), *first):
                await call.write(frame)
            try:
                async with asyncio.timeout(_HELD_SECONDS):
                    while await call.read() is not grpc.aio.EOF:
                        pass
            except TimeoutError:
                return True
            except grpc.aio.AioRpcError:
                return False
        return False

    def needs_streams(self) -> None:
        """Leave a check that is about stream inputs, where there are none.

        Raises:
            Unclear: the agent has none, or none was fed.
        """
        if not self.streams:
            raise Unclear("The agent takes no streams.")
