"""The RPCs of ``inference.GRPCInferenceService``; those without a method here answer UNIMPLEMENTED."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.parsing import parse
from mediamesh.inference.protocol.extensions import EXTENSIONS, ExtensionsServicer
from mediamesh.inference.protocol.outbox import Outbox
from mediamesh.inference.protocol.stream import Manner, Runner, answers, checked_size
from mediamesh.inference.repository.load_request import check_unload, override_of
from mediamesh.kit.boundary import time_left
from mediamesh.wire.errors import NotFound, NotImplementedByServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from google.protobuf.descriptor import MethodDescriptor

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.protocol.log_settings import LogSettings
    from mediamesh.inference.protocol.shared_memory import SharedMemory
    from mediamesh.inference.repository.repository import Repository
    from mediamesh.wire.infer_request import InferRequest

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE", "InferenceServicer", "register"]

_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _DESCRIPTOR.full_name
# These take the bytes of a request, so that tensors do not pass through protobuf. They give bytes, as an answer is
# bounded in bytes, and so is what waits to be written.
_BYTES = frozenset({"ModelInfer", "ModelStreamInfer"})


class InferenceServicer(ExtensionsServicer):
    """Answers for the models of a repository.

    Args:
        repository: The models.
        memory: The regions of shared memory.
        logs: What is written to the log.
        stream_requests: Requests in flight on one stream.
        stream_bytes: Bytes of answers that wait on one stream.
        message_bytes: Bytes of one answer.

    Attributes:
        runner: Runs single requests, wherever they come from.
    """

    def __init__(
        self,
        repository: Repository,
        memory: SharedMemory,
        logs: LogSettings,
        *,
        stream_requests: int,
        stream_bytes: int,
        message_bytes: int,
    ) -> None:
        super().__init__(memory, logs)
        self._repository = repository
        self._stream_requests = stream_requests
        self._stream_bytes = stream_bytes
        self._message_bytes = message_bytes
        self.runner = Runner(decoupled=self._decoupled, infer=self._infer, answers=self._answers)
        self._draining = asyncio.Event()

    async def drain(self) -> None:
        """Let streams answer what they have read, and end."""
        self._draining.set()

    def inputs_of(self, name: str, version: str) -> Mapping[str, TensorSpec]:
        """Return what a model takes.

        Raises:
            NotFound: there is no such model.
        """
        return self._repository.find(name, version).backend.signature.inputs

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answer: who can, is live."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Tell whether requests are accepted; single models may be missing, see RepositoryIndex."""
        return pb.ServerReadyResponse(ready=not self._draining.is_set())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Tell whether a model is loaded; one that is not there is not ready, which is no error."""
        return pb.ModelReadyResponse(ready=self._repository.has(request.name, request.version))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Name the server and what it does beyond the basic protocol."""
        providers = sorted({provider for model in self._repository.loaded() for provider in model.backend.providers})
        return pb.ServerMetadataResponse(
            name="mediamesh",
            version=installed_version("mediamesh"),
            extensions=[*EXTENSIONS, *(f"onnxruntime({name})" for name in providers)],
        )

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Describe a model's tensors."""
        response = self._repository.find(request.name, request.version).metadata()
        response.versions.extend(str(model.version) for model in self._repository.loaded(request.name))
        return response

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Return a model's configuration, with what it really runs on."""
        return pb.ModelConfigResponse(config=self._repository.find(request.name, request.version).config)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """Return the counters of one model or of all."""
        models = self._repository.loaded(request.name, request.version)
        return pb.ModelStatisticsResponse(
            model_stats=[model.backend.scheduler.statistics.snapshot() for model in models]
        )

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """List the models, loaded or not."""
        if request.repository_name:
            raise NotFound(f"There is no repository {request.repository_name!r}; this server's has no name.")
        index = [entry for entry in self._repository.index() if not request.ready or entry.state == "READY"]
        return pb.RepositoryIndexResponse(models=index)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, or load it again; returns when it is ready."""
        await self._repository.control.load(request.model_name, override_of(request))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; what it has begun is finished."""
        check_unload(request)
        await self._repository.control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, data: bytes, context: Context) -> bytes:
        """Run a model once."""
        response = await self._infer(parse(data), time_left(context))
        return checked_size(response.SerializeToString(), self._message_bytes, response.model_name)

    async def ModelStreamInfer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes]:
        """Run models, many requests in flight; no request's error ends the stream."""
        manner = Manner.of_headers(dict(context.invocation_metadata() or ()))
        outbox = Outbox(most_requests=self._stream_requests, most_bytes=self._stream_bytes)
        stream = answers(requests, self.runner, manner, outbox, self._draining, message_bytes=self._message_bytes)
        async with aclosing(stream) as responses:
            async for response in responses:
                yield response

    async def _infer(self, request: InferRequest, seconds: float | None) -> pb.ModelInferResponse:
        model = self._repository.find(request.message.model_name, request.message.model_version)
        return await model.infer(request, seconds, self._memory)

    def _decoupled(self, request: InferRequest) -> bool:
        return self._repository.find(request.message.model_name, request.message.model_version).decoupled

    def _answers(self, request: InferRequest, seconds: float | None) -> AsyncGenerator[pb.ModelInferResponse]:
        model = self._repository.find(request.message.model_name, request.message.model_version)
        return model.answers(request, seconds, self._memory)


def register(servicer: InferenceServicer, server: grpc.aio.Server) -> None:
    """Add the servicer to a server.

    The generated function would parse every request with protobuf.
    """
    handlers = {method.name: _handler(servicer, method) for method in _DESCRIPTOR.methods}
    server.add_registered_method_handlers(SERVICE, handlers)


def _handler(servicer: InferenceServicer, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    handler: grpc.RpcMethodHandler[Any, Any] = make(
        getattr(servicer, method.name, None) or _unimplemented(method.name),
        None if method.name in _BYTES else request.FromString,
        None if method.name in _BYTES else response.SerializeToString,
    )
    return handler


def _unimplemented(name: str) -> Any:
    async def refuse(_request: object, _context: Context) -> None:
        raise NotImplementedByServer(f"{name} is not implemented by this server.", method=name)

    return refuse
