"""AgentService as the SDK serves it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mediamesh.api.agent.v1.agent_service_pb2 import Capabilities, DescribeResponse
from mediamesh.api.agent.v1.agent_service_pb2_grpc import AgentServiceServicer
from mediamesh.kit.boundary import time_left
from mediamesh.wire.modalities import given_by, taken_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    import grpc

    from mediamesh.agent.host import AgentHost
    from mediamesh.agent.settings import AgentSettings
    from mediamesh.api.agent.v1.agent_service_pb2 import DescribeRequest, RunRequest, RunResponse
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["AgentServicer"]


class AgentServicer(AgentServiceServicer):
    """The wire's side of an agent host."""

    def __init__(self, host: AgentHost, settings: AgentSettings) -> None:
        self._host, self._settings = host, settings

    async def Describe(self, request: DescribeRequest, context: Context) -> DescribeResponse:
        """Tell which agents there are."""
        manifests = self._host.manifests(request.agent_id)
        capabilities = _capabilities(manifests, max_media_bytes=self._settings.max_media_bytes)
        capabilities.active_runs = self._host.active
        return DescribeResponse(agents=manifests, capabilities=capabilities)

    async def Run(self, request_iterator: AsyncIterator[RunRequest], context: Context) -> AsyncIterator[RunResponse]:
        """Run an agent once."""
        run = self._host.start(request_iterator, time_left(context))
        context.add_done_callback(lambda _: run.cancel())  # type: ignore[arg-type] # the stub knows only a protocol
        async for response in run:
            yield response


def _capabilities(manifests: Collection[Manifest], *, max_media_bytes: int) -> Capabilities:
    inputs = set[str]().union(*map(taken_by, manifests))
    outputs = set[str]().union(*map(given_by, manifests))
    return Capabilities(
        runtime="mediamesh-python",
        version=version("mediamesh"),
        streaming=True,
        input_modalities=sorted(inputs),
        output_modalities=sorted(outputs),
        max_media_size_mb=max_media_bytes / 1e6,
        supported_transports=["grpc"],
    )
