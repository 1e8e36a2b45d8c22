"""Checks of what a server says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import protovalidate
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mediamesh.agent.check.findings import Advice, Broken
from mediamesh.agent.manifest import manifest_problems
from mediamesh.client.channel import CORE_FAILURE

if TYPE_CHECKING:
    from mediamesh.agent.check.probe import Probe
    from mediamesh.api.agent.v1.agent_service_pb2 import DescribeResponse

__all__ = ["DESCRIBING"]

_SERVICE = "mediamesh.api.agent.v1.AgentService"


async def health(probe: Probe) -> str:
    """The server answers grpc.health.v1 with SERVING, for itself and for the agent service."""
    stub: Any = health_pb2_grpc.HealthStub(probe.channel)
    for name in ("", _SERVICE):
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=probe.seconds)
        except grpc.aio.AioRpcError as failure:
            raise Broken(f"Check({name!r}) ended with {_said(failure)}.") from None
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            raise Broken(f"Check({name!r}) says {state}.")
    return "SERVING"


async def reflection(probe: Probe) -> str:
    """The server should list the agent service by reflection, so that tools find it."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(probe.channel)  # type: ignore[arg-type] # it takes both
    request: Any = getattr(reflection_pb2, "ServerReflectionRequest")(list_services="")  # noqa: B009 - made at run time
    try:
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=probe.seconds):
            names = [service.name for service in answer.list_services_response.service]
            if _SERVICE in names:
                return f"{len(names)} services"
    except grpc.aio.AioRpcError as failure:
        said = "a refusal" if failure.details() == CORE_FAILURE else _said(failure)
        raise Advice(f"Reflection ended with {said}.") from None
    raise Advice(f"Reflection does not list {_SERVICE}.")


async def describe(probe: Probe) -> str:
    """Describe returns the manifests of one agent or more, within the rules of the contract, each id once."""
    answer = await _described(probe)
    if not answer.agents:
        raise Broken("There is no agent.")
    ids = [manifest.id for manifest in answer.agents]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise Broken(f"{', '.join(twice)} is there twice.")
    try:
        protovalidate.validate(answer.capabilities)
    except protovalidate.ValidationError as error:
        raise Broken(f"The capabilities break a rule: {error.violations[0].proto.message}.") from None
    return ", ".join(ids)


async def manifests(probe: Probe) -> str:
    """Every manifest is valid: rules of its fields, names that are there once, defaults that fit."""
    agents = (await _described(probe)).agents
    problems = [f"{manifest.id}: {path}: {text}" for manifest in agents for path, text in manifest_problems(manifest)]
    if problems:
        raise Broken("; ".join(problems))
    return "valid"


async def describe_one(probe: Probe) -> str:
    """Describe with an id returns that agent's manifest, the same as among all."""
    for manifest in (await _described(probe)).agents:
        alone = await _described(probe, manifest.id)
        if [one.id for one in alone.agents] != [manifest.id]:
            raise Broken(f"Describe({manifest.id!r}) returned {len(alone.agents)} agents, and not that one.")
        if alone.agents[0] != manifest:
            raise Broken(f"Describe({manifest.id!r}) returned another manifest than Describe of all.")
    return "the same manifests"


async def describe_unknown(probe: Probe) -> str:
    """Describe with an id that is not there is NOT_FOUND."""
    name = "conformance.no-such-agent"
    try:
        await probe.describe(name)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is not grpc.StatusCode.NOT_FOUND:
            raise Broken(f"Describe({name!r}) ended with {_said(failure)}; the contract has NOT_FOUND.") from None
        return "NOT_FOUND"
    raise Broken(f"Describe({name!r}) found something.")


async def capabilities(probe: Probe) -> str:
    """The capabilities should tell runtime, version, and how many runs are in progress."""
    has = (await _described(probe)).capabilities
    missing = [name for name in ("runtime", "version") if not getattr(has, name)]
    if not has.HasField("active_runs"):
        missing.append("active_runs, without which nobody sees whether cancelling frees anything")
    if missing:
        raise Advice(f"They do not tell {', '.join(missing)}.")
    return f"{has.runtime} {has.version}"


DESCRIBING = (health, reflection, describe, manifests, describe_one, describe_unknown, capabilities)
"""The checks of a server, in order."""


async def _described(probe: Probe, agent_id: str = "") -> DescribeResponse:
    try:
        return await probe.describe(agent_id)
    except grpc.aio.AioRpcError as failure:
        raise Broken(f"Describe({agent_id!r}) ended with {_said(failure)}.") from None


def _said(failure: grpc.aio.AioRpcError) -> str:
    return f"{failure.code().name}: {failure.details()!r}"
