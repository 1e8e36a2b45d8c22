"""The RPCs of ``inference.InferenceEdgeService``, which Envoy makes of HTTP requests, by way of those of the protocol.

A method returns a value of JSON, or raises; what becomes of either is decided in one place. An error is an answer too:
its status is a header that the door applies, as no status of gRPC becomes the JSON that clients of Triton read.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.api.httpbody_pb2 import HttpBody

from mediamesh.api.inference.v2 import inference_edge_service_pb2 as edge_pb
from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.rest.answers import flat, infer_answer, pieces
from mediamesh.inference.rest.errors import STATUS_HEADER
from mediamesh.inference.rest.generate import generate_request
from mediamesh.inference.rest.handlers import JSON, kept_rules, parsed
from mediamesh.inference.rest.messages import plain
from mediamesh.inference.rest.requests import infer_request, json_object, lone_tensor
from mediamesh.inference.rest.settings import log_settings, region_of, repository_parameters, trace_settings
from mediamesh.kit.boundary import time_left
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MeshError, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    import grpc

    from mediamesh.inference.rest.requests import RestRequest
    from mediamesh.inference.service import InferenceServicer

    Context = grpc.aio.ServicerContext[Any, Any]
    Request = edge_pb.InferenceEdgeRequest

__all__ = ["InferenceEdgeServicer"]

_BINARY, _EVENTS = "application/octet-stream", "text/event-stream; charset=utf-8"
_LENGTH_HEADER = "inference-header-content-length"


class InferenceEdgeServicer:
    """Answers over HTTP for the servicer of the protocol.

    Args:
        server: Who answers.
        most_bytes: Largest body that is read.
        most_json: Largest part of it that may be JSON: reading it holds up every other request.
        most_texts: Most elements of an input of BYTES, for the same reason.
    """

    def __init__(self, server: InferenceServicer, *, most_bytes: int, most_json: int, most_texts: int) -> None:
        self._server = server
        self._most_bytes = most_bytes
        self._most_json = most_json
        self._most_texts = most_texts

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> None:
        """Answer: who can, is live."""

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> None:
        """Tell by the status whether requests are accepted."""
        if not (await self._server.ServerReady(request, context)).ready:
            await context.send_initial_metadata(((STATUS_HEADER, "503"),))

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> None:
        """Tell by the status whether a model is ready."""
        if not (await self._server.ModelReady(request, context)).ready:
            await context.send_initial_metadata(((STATUS_HEADER, "400"),))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> Any:
        """Name the server and what it does."""
        return plain(await self._server.ServerMetadata(request, context))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> Any:
        """Describe a model's tensors."""
        return plain(await self._server.ModelMetadata(request, context))

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> Any:
        """Return a model's configuration, bare as in Triton."""
        return plain((await self._server.ModelConfig(request, context)).config)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> Any:
        """Return the counters of one model or of all."""
        return plain(await self._server.ModelStatistics(request, context))

    async def ModelInfer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[HttpBody]:
        """Run a model once."""
        head, binary = await self._inferred(requests, context)
        if binary:
            await context.send_initial_metadata(((_LENGTH_HEADER, str(len(head))),))
        for piece in pieces([head, *binary]):
            yield HttpBody(content_type=_BINARY if binary else JSON, data=piece)

    async def Generate(self, request: Request, context: Context) -> Any:
        """Run a model that gives one answer to a flat object."""
        found = []
        async with aclosing(self._generated(request, context)) as answers:
            async for answer in answers:
                found.append(answer)
                if len(found) > 1:
                    break
        if len(found) != 1:
            raise InvalidRequest(
                f"Model {request.name} gave {'more than one answer' if found else 'no answer'}, expected one; ask "
                "generate_stream for a model that may give any number."
            )
        return found[0]

    async def GenerateStream(self, request: bytes, context: Context) -> AsyncGenerator[HttpBody]:
        """Run a model, and send each of its answers as an event; an error after the first is an event too."""
        asked = parsed(edge_pb.InferenceEdgeRequest, request)
        is_begun = False
        try:
            async with aclosing(self._generated(asked, context)) as answers:
                async for answer in answers:
                    if not is_begun:
                        await context.send_initial_metadata((("cache-control", "no-cache"),))
                        is_begun = True
                    yield _event(answer)
        except MeshError as error:
            if not is_begun:
                raise
            yield _event({"error": error.text})
        if not is_begun:
            yield HttpBody(content_type=_EVENTS)

    async def RepositoryIndex(self, request: Request, context: Context) -> Any:
        """List the models, loaded or not."""
        given = self._object(request, context, "the index")
        if not isinstance(ready := given.get("ready", False), bool):
            raise InvalidRequest.of_field("ready", "must be true or false")
        index = await self._server.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready), context)
        return [{key: value for key, value in plain(entry).items() if value} for entry in index.models]

    async def RepositoryModelLoad(self, request: Request, context: Context) -> None:
        """Load a model, or load it again."""
        parameters = repository_parameters(self._object(request, context, request.name), f"model {request.name}")
        load = pb.RepositoryModelLoadRequest(model_name=request.name, parameters=parameters)
        await self._server.RepositoryModelLoad(kept_rules(load), context)

    async def RepositoryModelUnload(self, request: Request, context: Context) -> None:
        """Unload a model."""
        parameters = repository_parameters(self._object(request, context, request.name), f"model {request.name}")
        unload = pb.RepositoryModelUnloadRequest(model_name=request.name, parameters=parameters)
        await self._server.RepositoryModelUnload(kept_rules(unload), context)

    async def SystemSharedMemoryStatus(self, request: pb.SystemSharedMemoryStatusRequest, context: Context) -> Any:
        """List regions of shared memory."""
        status = await self._server.SystemSharedMemoryStatus(request, context)
        return list(plain(status)["regions"].values())

    async def SystemSharedMemoryRegister(self, request: Request, context: Context) -> None:
        """Register a region of shared memory."""
        region = region_of(request.name, self._object(request, context, f"region {request.name}"))
        await self._server.SystemSharedMemoryRegister(kept_rules(region), context)

    async def SystemSharedMemoryUnregister(self, request: Request, context: Context) -> None:
        """Forget a region of shared memory, or all."""
        unregister = pb.SystemSharedMemoryUnregisterRequest(name=request.name)
        await self._server.SystemSharedMemoryUnregister(unregister, context)

    async def CudaSharedMemoryStatus(self, request: pb.CudaSharedMemoryStatusRequest, context: Context) -> Any:
        """List regions of CUDA memory."""
        status = await self._server.CudaSharedMemoryStatus(request, context)
        return list(plain(status)["regions"].values())

    async def CudaSharedMemoryRegister(self, request: Request, context: Context) -> None:
        """Refuse a region of CUDA memory."""
        await self._server.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name=request.name), context)

    async def CudaSharedMemoryUnregister(self, request: Request, context: Context) -> None:
        """Forget regions of CUDA memory."""
        unregister = pb.CudaSharedMemoryUnregisterRequest(name=request.name)
        await self._server.CudaSharedMemoryUnregister(unregister, context)

    async def TraceSetting(self, request: Request, context: Context) -> Any:
        """Change trace settings, and return all: a list for the level, a text for any other."""
        wanted = trace_settings(request.name, self._object(request, context, "trace settings"))
        settings = (await self._server.TraceSetting(kept_rules(wanted), context)).settings
        values = {name: list(settings[name].value) for name in sorted(settings)}
        return {name: value if name == "trace_level" else value[0] for name, value in values.items()}

    async def LogSettings(self, request: Request, context: Context) -> Any:
        """Change log settings, and return all."""
        wanted = log_settings(self._object(request, context, "log settings"))
        settings = (await self._server.LogSettings(kept_rules(wanted), context)).settings
        return {name: next(iter(plain(settings[name]).values())) for name in sorted(settings)}

    async def _inferred(self, requests: AsyncIterator[bytes], context: Context) -> tuple[bytes, list[bytes]]:
        """Return an answer's JSON and what stands behind it; body and tensors are gone before it is written."""
        name, version, body = await self._collected(requests, context)
        wanted = self._wanted(name, version, body, context)
        return infer_answer(await self._server.runner.infer(wanted.request, time_left(context)), wanted)

    def _wanted(self, name: str, version: str, body: memoryview, context: Context) -> RestRequest:
        length = _headers(context).get(_LENGTH_HEADER, "")
        if length and not (length.isascii() and length.isdecimal() and len(length) < 20):
            raise InvalidRequest.of_field("Inference-Header-Content-Length", f"is {length[:40]!r}, expected a number")
        if length and not int(length):
            return lone_tensor(name, version, body, self._server.inputs_of(name, version))
        self._check_json(int(length) if length else len(body), f"model {name}")
        return infer_request(name, version, body, int(length) if length else None, most_texts=self._most_texts)

    async def _collected(self, requests: AsyncIterator[bytes], context: Context) -> tuple[str, str, memoryview]:
        """Return what the address says, and the whole body, which comes in pieces."""
        _check_encoding(context)
        name, version = "", ""
        body = bytearray()
        async for data in requests:
            request = parsed(edge_pb.InferenceEdgeRequest, data)
            name, version = name or request.name, version or request.version
            if len(body) + len(request.body.data) > self._most_bytes:
                raise MediaTooLarge(f"model {name}: the body has more than {self._most_bytes} bytes.", model=name)
            body += request.body.data
        return name, version, memoryview(body)

    async def _generated(self, request: Request, context: Context) -> AsyncGenerator[dict[str, Any]]:
        given = self._object(request, context, f"model {request.name}")
        inputs = self._server.inputs_of(request.name, request.version)
        wanted = generate_request(request.name, request.version, given, inputs, most_texts=self._most_texts)
        runner, seconds = self._server.runner, time_left(context)
        if not runner.decoupled(wanted):
            yield flat(await runner.infer(wanted, seconds))
            return
        async with aclosing(runner.answers(wanted, seconds)) as answers:
            async for answer in answers:
                if answer.outputs:
                    yield flat(answer)

    def _object(self, request: Request, context: Context, where: str) -> dict[str, Any]:
        _check_encoding(context)
        self._check_json(len(request.body.data), where)
        return json_object(request.body.data, where)

    def _check_json(self, size: int, where: str) -> None:
        if size > self._most_json:
            raise MediaTooLarge(
                f"{where}: {size} bytes are more JSON than the {self._most_json} that are read; send tensors as binary "
                "data."
            )


def _event(value: Mapping[str, Any]) -> HttpBody:
    return HttpBody(content_type=_EVENTS, data=f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode())


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _check_encoding(context: Context) -> None:
    encoding = _headers(context).get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(
            f"Bodies with Content-Encoding {encoding[:40]!r} are not read; send them as they are."
        )
