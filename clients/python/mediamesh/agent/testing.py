"""For the tests of agents: one call that serves an agent, runs it through the real client, and returns its outputs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, struct_pb2

from mediamesh.agent.app import serving_agents
from mediamesh.agent.pins import from_value, to_value
from mediamesh.agent.settings import AgentSettings
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.client.agents import AgentClient
from mediamesh.client.channel import connect
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping

    from mediamesh.agent.agent import Agent
    from mediamesh.api.agent.v1.agent_service_pb2 import RunResponse

__all__ = ["gather", "run_agent"]


async def run_agent(
    agent: Agent,
    inputs: Mapping[str, object],
    params: Mapping[str, object] | None = None,
    *,
    response_mode: ResponseMode.ValueType = ResponseMode.RESPONSE_MODE_UNSPECIFIED,
    settings: AgentSettings | None = None,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """Return the outputs of one run by pin: values as Python's, media as bytes, streams as lists of chunks.

    Args:
        agent: What to run.
        inputs: Single values by pin, as Python's; media as MediaValue.
        params: Parameters by name.
        response_mode: Whether the answer is to come at once or as a stream; as the manifest has it when not said.
        settings: Of the server that is started for the run.
        timeout: Deadline in seconds.

    Raises:
        MeshError: the run failed; the class says how.
    """
    manifest = agent.describe()
    pins = {pin.name: pin for pin in manifest.inputs}
    opening = OpenRun(
        agent_id=manifest.id,
        inputs={name: to_value(pins[name], given) for name, given in inputs.items()},
        params=json_format.ParseDict(dict(params or {}), struct_pb2.Struct()),
        response_mode=response_mode,
    )
    failure: MeshError | None = None
    outputs: dict[str, Any] = {}
    async with serving_agents(settings or AgentSettings(), agent) as port, connect(f"127.0.0.1:{port}") as channel:
        try:
            outputs = await gather(AgentClient(channel).run(opening, timeout=timeout))
        except MeshError as error:  # raised in here it would leave as a group
            failure = error
    if failure is not None:
        raise failure
    return outputs


async def gather(responses: AsyncIterable[RunResponse]) -> dict[str, Any]:
    """Return what a run gives, by pin, when it has finished."""
    outputs: dict[str, Any] = {}
    media: defaultdict[str, bytearray] = defaultdict(bytearray)
    async for response in responses:
        match response.WhichOneof("message"):
            case "output":
                outputs[response.output.pin] = from_value(response.output.value)
            case "media":
                media[response.media.pin] += response.media.data
            case "chunk":
                outputs.setdefault(response.chunk.pin, []).append(response.chunk.chunk)
            case "end":
                outputs.setdefault(response.end.pin, [])
    return outputs | {pin: bytes(data) for pin, data in media.items()}
