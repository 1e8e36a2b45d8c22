"""All checks against one server, in order; what a check finds out is yielded as soon as it is known."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf import json_format, struct_pb2

from mediamesh.agent.check.describing import DESCRIBING
from mediamesh.agent.check.errors import ERRORS
from mediamesh.agent.check.findings import Advice, Broken, Finding, Unclear, Verdict
from mediamesh.agent.check.flow_control import FLOW_CONTROL
from mediamesh.agent.check.lasting import LASTING
from mediamesh.agent.check.material import candidates
from mediamesh.agent.check.probe import probing
from mediamesh.agent.check.refusing import REFUSING
from mediamesh.agent.check.running import RUNNING
from mediamesh.agent.check.streaming import STREAMING
from mediamesh.agent.check.subject import Subject
from mediamesh.agent.manifest import manifest_problems
from mediamesh.wire.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping

    from mediamesh.agent.check.material import Sample
    from mediamesh.agent.check.probe import Probe
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.value_pb2 import Value

    Inputs = Callable[[Manifest], Mapping[str, Value]]

C = TypeVar("C", bound="Callable[..., object]")

__all__ = ["check_names", "check_server"]

_CHECKS = (*RUNNING, *REFUSING, *STREAMING, *LASTING, *FLOW_CONTROL, *ERRORS)
_RUN = "run"
_RUN_PROMISE = "An agent finishes a run on inputs that fit its manifest."


async def check_server(
    target: str,
    *,
    agent_id: str = "",
    inputs: Inputs | None = None,
    params: Mapping[str, object] | None = None,
    seconds: float = 10.0,
    only: Collection[str] = (),
) -> AsyncGenerator[Finding]:
    """Check the agents of a server.

    The server should have no other work meanwhile, as some checks look at how many runs it has in progress.

    Args:
        target: ``host:port``.
        agent_id: Check only this agent; all when empty.
        inputs: Returns values by pin for an agent; what it leaves out is made up.
        params: Parameters by name, for agents that have them.
        seconds: How long one run may take.
        only: Names of checks; all when empty. Whether an agent finishes a run is always seen to.

    Raises:
        NotFound: the server has no such agent.
        InvalidRequest: there is no check of a name.
    """
    if unknown := sorted(set(only) - set(check_names())):
        text = f"there is no check {', '.join(unknown)}; there are {', '.join(check_names())}"
        raise InvalidRequest.of_field("only", text)
    begin = time.monotonic()
    try:
        async with probing(target, seconds) as probe:
            for check in _chosen(DESCRIBING, only):
                yield await _finding(check, "", check(probe))
            for manifest in await _manifests(probe, agent_id):
                given = inputs(manifest) if inputs is not None else {}
                async for finding in _check_agent(probe, manifest, given, params or {}, only=only):
                    yield finding
    except Broken as broken:
        yield _failed("reachable", "", "A gRPC server answers.", broken, time.monotonic() - begin)


def check_names() -> list[str]:
    """Return the names of all checks, in order."""
    return [_name(check) for check in (*DESCRIBING, *_CHECKS)]


def _name(check: Callable[..., object]) -> str:
    return check.__name__.replace("_", "-")


def _chosen(checks: Iterable[C], only: Collection[str]) -> list[C]:
    return [check for check in checks if not only or _name(check) in only]


async def _manifests(probe: Probe, agent_id: str) -> list[Manifest]:
    try:
        found = list((await probe.describe()).agents)
    except grpc.aio.AioRpcError:
        return []
    if agent_id:
        found = [manifest for manifest in found if manifest.id == agent_id]
        if not found:
            raise NotFound(f"The server has no agent {agent_id!r}.", agent=agent_id)
    return [manifest for manifest in found if not manifest_problems(manifest)]


async def _check_agent(
    probe: Probe,
    manifest: Manifest,
    inputs: Mapping[str, Value],
    params: Mapping[str, object],
    *,
    only: Collection[str],
) -> AsyncGenerator[Finding]:
    begin = time.monotonic()
    probe.failures.clear()
    declared = {param.name for param in manifest.params}
    chosen = {name: value for name, value in params.items() if name in declared}
    try:
        subject = await _subject(probe, manifest, inputs, json_format.ParseDict(chosen, struct_pb2.Struct()))
    except Broken as broken:
        yield _failed(_RUN, manifest.id, _RUN_PROMISE, broken, time.monotonic() - begin)
        return
    probe.failures.clear()  # those were trials
    said = f"{subject.outcome.seconds * 1000:.0f} ms, {len(subject.outcome.frames)} frames"
    yield Finding(
        check=_RUN,
        agent=manifest.id,
        verdict=Verdict.PASSED,
        promise=_RUN_PROMISE,
        text=said,
        seconds=time.monotonic() - begin,
    )
    for check in _chosen(_CHECKS, only):
        yield await _finding(check, manifest.id, check(subject))


async def _subject(probe: Probe, manifest: Manifest, inputs: Mapping[str, Value], params: struct_pb2.Struct) -> Subject:
    """Find a run that the agent finishes."""
    first: tuple[Sample, str] | None = None
    try:
        for sample in candidates(manifest, inputs, params):
            outcome = await probe.run(sample.requests, what="made-up inputs")
            if outcome.succeeded:
                return Subject(probe=probe, manifest=manifest, sample=sample, outcome=outcome)
            if outcome.code is not grpc.StatusCode.INVALID_ARGUMENT:
                raise Broken(f"A run on made-up inputs {outcome.describe()}.")
            first = first or (sample, outcome.describe())
    except InvalidRequest as error:
        raise Broken(f"{error.text}.") from None
    said = first[1] if first else "was not possible"
    raise Broken(f"A run on made-up inputs {said}. Give it others: --input PIN=VALUE.")


async def _finding(check: Callable[..., object], agent: str, work: Awaitable[str]) -> Finding:
    begin = time.monotonic()
    verdict = Verdict.PASSED
    try:
        text = await work
    except Broken as broken:
        verdict, text = Verdict.FAILED, str(broken)
    except Advice as advice:
        verdict, text = Verdict.WARNED, str(advice)
    except Unclear as unclear:
        verdict, text = Verdict.SKIPPED, str(unclear)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as failure:
        code = failure.code().name if isinstance(failure, grpc.aio.AioRpcError) else "closed"
        verdict, text = Verdict.FAILED, f"A call ended with {code} in the midst of the check."
    promise = (check.__doc__ or "").partition("\n")[0]
    name = _name(check)
    seconds = time.monotonic() - begin
    return Finding(check=name, agent=agent, verdict=verdict, promise=promise, text=text, seconds=seconds)


def _failed(check: str, agent: str, promise: str, broken: Broken, seconds: float) -> Finding:
    return Finding(check=check, agent=agent, verdict=Verdict.FAILED, promise=promise, text=str(broken), seconds=seconds)
