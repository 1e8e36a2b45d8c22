"""The models that servers have: what they are, what they did, and loading them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client.inference.pool import Search
from mediamesh.wire.errors import MeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.inference.v2.model_config_pb2 import ModelConfig
    from mediamesh.client.inference.pool import Pool
    from mediamesh.client.inference.server import Server

__all__ = ["Models"]


class Models:
    """The models of a client's servers.

    What asks takes one server, the one named or any that answers. What changes goes to the server named or, one after
    the other, to all: while one loads a model, the others have it.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def server_metadata(self, *, server: str = "") -> pb.ServerMetadataResponse:
        """Return a server's name, version and extensions of the protocol."""
        answer: pb.ServerMetadataResponse = await self._any("ServerMetadata", pb.ServerMetadataRequest(), server=server)
        return answer

    async def index(self, *, ready: bool = False, server: str = "") -> list[pb.RepositoryIndexResponse.ModelIndex]:
        """Return the models of the repository, with the reason where one is not loaded.

        Args:
            ready: Only those that can run.
            server: Address of the server to ask.
        """
        answer = await self._any("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready), server=server)
        return list(answer.models)

    async def is_ready(self, model: str, *, version: str = "", server: str = "") -> bool:
        """Tell whether a model can run."""
        request = pb.ModelReadyRequest(name=model, version=version)
        try:
            return bool((await self._any("ModelReady", request, model, server)).ready)
        except NotFound:  # a Triton that never heard of it
            return False

    async def metadata(self, model: str, *, version: str = "", server: str = "") -> pb.ModelMetadataResponse:
        """Return the names, types and shapes of a model's tensors."""
        request = pb.ModelMetadataRequest(name=model, version=version)
        answer: pb.ModelMetadataResponse = await self._any("ModelMetadata", request, model, server)
        return answer

    async def config(self, model: str, *, version: str = "", server: str = "") -> ModelConfig:
        """Return a model's configuration, complete."""
        answer = await self._any("ModelConfig", pb.ModelConfigRequest(name=model, version=version), model, server)
        config: ModelConfig = answer.config
        return config

    async def statistics(self, model: str = "", *, version: str = "", server: str = "") -> list[pb.ModelStatistics]:
        """Return the counters of a model, or of all."""
        request = pb.ModelStatisticsRequest(name=model, version=version)
        return list((await self._any("ModelStatistics", request, model, server)).model_stats)

    async def load(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        server: str = "",
    ) -> None:
        """Load a model, or load it anew: requests go on with what there was until the new one is ready.

        Args:
            model: Its name.
            config: Its configuration in place of the repository's ``config.pbtxt``, spelled as JSON.
            files: Contents of files by path within the model's directory, such as ``1/model.onnx``; needs a config.
            server: Address of one server; all, one after the other, when empty.

        Raises:
            MeshError: it cannot be loaded; says which file is wrong and how. What ran before, runs on.
        """
        request = pb.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = json.dumps(config)
        for path, content in (files or {}).items():
            request.parameters[f"file:{path}"].bytes_param = content
        await self._all("RepositoryModelLoad", request, server)

    async def unload(self, model: str, *, server: str = "") -> None:
        """Unload a model; what it was asked before, it answers.

        Args:
            model: Its name.
            server: Address of one server; all, one after the other, when empty.
        """
        await self._all("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model), server)

    async def _any(self, method: str, request: Any, model: str = "", server: str = "") -> Any:
        if server:
            return await self._named(server).unary(method, request)
        search = Search(self._pool, model)
        while True:
            chosen = search.server()
            try:
                return await chosen.unary(method, request)
            except MeshError as error:
                await search.failed(chosen, error)

    async def _all(self, method: str, request: Any, server: str) -> None:
        for one in [self._named(server)] if server else self._pool.servers:
            await one.unary(method, request)

    def _named(self, address: str) -> Server:
        for server in self._pool.servers:
            if server.address == address:
                return server
        known = ", ".join(server.address for server in self._pool.servers)
        raise NotFound(f"There is no server {address}; there are {known}.")
