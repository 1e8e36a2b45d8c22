"""Checks of runs that last: cancelled, out of time, unread; and of the server after all that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from mediamesh.agent.check.describing import health
from mediamesh.agent.check.findings import Advice, Broken, Unclear
from mediamesh.agent.check.judge import judge
from mediamesh.api.agent.v1.agent_service_pb2 import RunRequest

if TYPE_CHECKING:
    from mediamesh.agent.check.subject import Subject

__all__ = ["LASTING"]

_CANCEL_SECONDS = 1.0  # "cancelling reaches every agent within a second"
_DEADLINE_SECONDS = 0.5
_START_SECONDS = 0.25


async def cancellation(subject: Subject) -> str:
    """A run ends within a second after its caller cancelled it."""
    before = await _active(subject)
    held = await subject.holds_open()
    wait = _START_SECONDS if held else min(subject.outcome.seconds / 2, 5.0)
    async with subject.probe.call() as call:
        await call.write(RunRequest(open=subject.opening()))
        if not held:
            for frame in subject.sample.frames:
                await call.write(frame)
        await asyncio.sleep(wait)
        if held and not await subject.probe.busy(before):
            raise Broken("A run was in progress, and active_runs did not count it.")
    took = await subject.probe.idle_within(_CANCEL_SECONDS, before)
    if took is None:
        raise Broken(f"The run still went on {_CANCEL_SECONDS:g} s after it was cancelled (active_runs).")
    return f"ended within {took * 1000:.0f} ms"


async def deadline(subject: Subject) -> str:
    """A run that outlives the time its caller gave it ends with DEADLINE_EXCEEDED, and stops working."""
    if not await subject.holds_open():
        raise Unclear("Nothing makes a run of this agent last.")
    before = await subject.probe.active_runs()
    frames = [RunRequest(open=subject.opening())]
    outcome = await subject.probe.run(frames, what="a deadline", half_close=False, deadline=_DEADLINE_SECONDS)
    if outcome.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        given = f"A run that was given {_DEADLINE_SECONDS:g} s"
        raise Broken(f"{given} {outcome.describe()}; the contract has DEADLINE_EXCEEDED.")
    if before is not None and await subject.probe.idle_within(_CANCEL_SECONDS, before) is None:
        raise Broken(f"The run still went on {_CANCEL_SECONDS:g} s after its deadline (active_runs).")
    return f"ended after {outcome.seconds:.2f} s"


async def recovery(subject: Subject) -> str:
    """After all that the server is SERVING, no run is left, and a run goes as before."""
    await health(subject.probe)
    outcome = await subject.probe.run(subject.sample.requests)
    if not outcome.succeeded:
        raise Broken(f"A run as before {outcome.describe()}.")
    if (faults := judge(subject.manifest, outcome.frames).faults("whole")) and not subject.judgement.faults("whole"):
        raise Broken(f"A run as before went wrong: {faults}.")
    if await subject.probe.idle_within(_CANCEL_SECONDS, 0) is None:
        left = await subject.probe.active_runs()
        raise Broken(f"{left} runs are still in progress, and nobody waits for them (active_runs).")
    return "as before"


LASTING = (cancellation, deadline, recovery)
"""The checks of runs that last, in order."""


async def _active(subject: Subject) -> int:
    active = await subject.probe.active_runs()
    if active is None:
        raise Advice("The server does not tell active_runs: nobody sees whether the run ends.")
    return active
