"""An inference server whose answers a test writes, and that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.inference.v2 import inference_service_pb2 as pb

Behaviour = Callable[[pb.ModelInferRequest], AsyncIterator[pb.ModelStreamInferResponse]]

__all__ = ["Behaviour", "Break", "FakeServer", "answer", "echo", "fake_server", "refusal"]


def answer(request: pb.ModelInferRequest, *values: float, final: bool | None = True) -> pb.ModelStreamInferResponse:
    """Return an answer with one output ``y``; without values, one without outputs."""
    response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    if values:
        array = np.array([values], np.float32)
        response.outputs.add(name="y", datatype="FP32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    if final is not None:
        response.parameters["triton_final_response"].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response)


def refusal(request: pb.ModelInferRequest, text: str) -> pb.ModelStreamInferResponse:
    """Return an error as Triton tells it on a stream: a sentence, and no status."""
    response = pb.ModelStreamInferResponse(error_message=text)
    response.infer_response.id = request.id
    return response


async def echo(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelStreamInferResponse]:
    """Answer with the first input."""
    yield answer(request, *np.frombuffer(request.raw_input_contents[0], np.float32))


class Break(Exception):
    """Ends the whole call with UNAVAILABLE."""


class FakeServer:
    """Answers as it is told.

    Attributes:
        behave: Yields the answers to a request; raising `Break` ends the call that it came on.
        asked: Requests, in the order in which they came.
        streams: How many streams were opened.
        cancelled: Set when a caller leaves a stream.
        calls: Other calls, as method and request.
        has_models: What ModelReady says.
        is_gone: ModelReady and ServerMetadata are refused as by a server that went away.
        is_serving: What ServerReady says.
        extensions: What ServerMetadata says that it knows.
    """

    def __init__(self, behave: Behaviour = echo) -> None:
        self.behave = behave
        self.asked: list[pb.ModelInferRequest] = []
        self.streams = 0
        self.cancelled = asyncio.Event()
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.has_models = self.is_serving = True
        self.is_gone = False
        self.extensions: list[str] = []
        self.address = ""

    async def ModelStreamInfer(self, request_iterator, context) -> None:
        self.streams += 1
        turn = asyncio.Lock()
        try:
            async with asyncio.TaskGroup() as running:
                async for request in request_iterator:
                    self.asked.append(request)
                    running.create_task(self._answer(request, context, turn))
        except* Break:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "The server fell over.")
        except* asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _answer(self, request: pb.ModelInferRequest, context, turn: asyncio.Lock) -> None:
        async for response in self.behave(request):
            async with turn:
                await context.write(response)

    async def ModelInfer(self, request, context) -> pb.ModelInferResponse:
        self.asked.append(request)
        try:
            async for response in self.behave(request):
                if response.error_message:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, response.error_message)
                return response.infer_response
        except Break:
            pass
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The server fell over.")
        raise AssertionError

    async def ServerReady(self, request, context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.is_serving)

    async def ModelReady(self, request, context) -> pb.ModelReadyResponse:
        if self.is_gone:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection refused")
        return pb.ModelReadyResponse(ready=self.has_models)

    async def ModelMetadata(self, request, context) -> pb.ModelMetadataResponse:
        self._note("ModelMetadata", request)
        if not self.has_models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {request.name!r}")
        response = pb.ModelMetadataResponse(name=request.name, versions=["1"])
        response.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        return response

    async def ServerMetadata(self, request, context) -> pb.ServerMetadataResponse:
        if self.is_gone:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection refused")
        return pb.ServerMetadataResponse(name="fake", version="1", extensions=self.extensions)

    async def ModelConfig(self, request, context) -> pb.ModelConfigResponse:
        response = pb.ModelConfigResponse()
        response.config.name = request.name
        return response

    async def ModelStatistics(self, request, context) -> pb.ModelStatisticsResponse:
        return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(name=request.name, inference_count=7)])

    async def RepositoryIndex(self, request, context) -> pb.RepositoryIndexResponse:
        entry = pb.RepositoryIndexResponse.ModelIndex(name="m", version="1", state="READY")
        return pb.RepositoryIndexResponse(models=[entry])

    async def RepositoryModelLoad(self, request, context) -> pb.RepositoryModelLoadResponse:
        self._note("RepositoryModelLoad", request)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request, context) -> pb.RepositoryModelUnloadResponse:
        self._note("RepositoryModelUnload", request)
        return pb.RepositoryModelUnloadResponse()

    def _note(self, method: str, request) -> None:
        self.calls.append((method, json_format.MessageToDict(request)))


@asynccontextmanager
async def fake_server(behave: Behaviour = echo, *, port: int = 0) -> AsyncGenerator[FakeServer]:
    """Run one for as long as the block lasts."""
    fake = FakeServer(behave)
    server = grpc.aio.server()
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = {method.name: _handler(fake, method) for method in service.methods if hasattr(fake, method.name)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    fake.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)


def _handler(fake: FakeServer, method):
    make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    return make(getattr(fake, method.name), request.FromString, response.SerializeToString)
