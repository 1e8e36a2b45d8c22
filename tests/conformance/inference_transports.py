"""What a transport of the inference server must offer to be held to the suite, and those that there are.

A new transport is a class here and a name in ``TRANSPORTS``; nothing else in the suite knows one from another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client import connect
from mediamesh.client.inference.answers import error_of
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    NotFound,
    NotImplementedByServer,
    Overloaded,
)

__all__ = ["TRANSPORTS", "InferenceTransport", "inference_door"]


class InferenceTransport(Protocol):
    """Runs models.

    Attributes:
        carries_status: Errors come with all details, and not just with their class and sentence.
    """

    carries_status: bool

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Run a model once; outputs come in ``raw_output_contents``.

        Raises:
            MeshError: the class that the server's error spells.
        """
        ...

    async def send(self, model: str, body: bytes) -> None:
        """Send bytes that are no request."""
        ...


class Unary:
    """ModelInfer over grpc.aio."""

    carries_status = True

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        response: pb.ModelInferResponse = await self._call(request.SerializeToString())
        return response

    async def send(self, model: str, body: bytes) -> None:
        await self._call(body)


class Stream:
    """All requests over one ModelStreamInfer, in the order of their answers or of their requests."""

    carries_status = True

    def __init__(self, channel: grpc.aio.Channel, tasks: asyncio.TaskGroup, order: str) -> None:
        self._channel, self._order = channel, order
        self._unwritten: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}
        self.reading = tasks.create_task(self._read())

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        key, own = request.id, f"{len(self._waiting)}-{id(request)}"
        answer: asyncio.Future[pb.ModelInferResponse] = asyncio.get_running_loop().create_future()
        self._waiting[own] = answer
        sent = pb.ModelInferRequest()
        sent.CopyFrom(request)
        sent.id = own
        self._unwritten.put_nowait(sent.SerializeToString())
        response = await answer
        assert response.id == own
        response.id = key
        return response

    async def send(self, model: str, body: bytes) -> None:
        # An answer to what could not be read has no id.
        self._waiting[""] = answer = asyncio.get_running_loop().create_future()
        self._unwritten.put_nowait(body)
        await answer

    async def _read(self) -> None:
        call: Any = self._channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        async for response in call(self._requests(), metadata=(("mediamesh-answer-order", self._order),)):
            answer = self._waiting.pop(response.infer_response.id)
            if answer.done():
                continue
            if response.error_message:
                answer.set_exception(error_of(response))
            else:
                answer.set_result(response.infer_response)

    async def _requests(self) -> AsyncGenerator[bytes]:
        while (request := await self._unwritten.get()) is not None:
            yield request


class Rest:
    """Triton's REST: JSON, and the bytes of tensors behind it."""

    carries_status = False
    _CLASSES: Mapping[int, type[MeshError]] = {
        400: InvalidRequest,
        404: NotFound,
        429: Overloaded,
        501: NotImplementedByServer,
        504: DeadlineExceeded,
    }

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        head = json.dumps(self._spelled(request)).encode()
        answer = await self._http.post(
            self._path(request),
            content=b"".join((head, *request.raw_input_contents)),
            headers={"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"},
        )
        self._raise(answer)
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        spelled = json.loads(answer.content[:length])
        response = pb.ModelInferResponse(
            id=spelled.get("id", ""), model_name=spelled["model_name"], model_version=spelled["model_version"]
        )
        at = length
        for output in spelled["outputs"]:
            response.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
            size = output["parameters"]["binary_data_size"]
            response.raw_output_contents.append(answer.content[at : at + size])
            at += size
        assert at == len(answer.content)
        return response

    async def send(self, model: str, body: bytes) -> None:
        self._raise(await self._http.post(f"/v2/models/{model}/infer", content=body))

    def _raise(self, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            raise self._CLASSES.get(answer.status_code, MeshError)(answer.json()["error"])

    @staticmethod
    def _path(request: pb.ModelInferRequest) -> str:
        version = f"/versions/{request.model_version}" if request.model_version else ""
        return f"/v2/models/{request.model_name}{version}/infer"

    @staticmethod
    def _spelled(request: pb.ModelInferRequest) -> dict[str, Any]:
        raw = iter(request.raw_input_contents)
        inputs = []
        for tensor in request.inputs:
            spelled: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            if request.raw_input_contents:
                spelled["parameters"] = {"binary_data_size": len(next(raw, b""))}
            else:
                ((_, elements),) = tensor.contents.ListFields() or ((None, []),)
                spelled["data"] = [item.decode() if isinstance(item, bytes) else item for item in elements]
            inputs.append(spelled)
        outputs = [
            {"name": output.name, "parameters": _plain(output.parameters) | {"binary_data": True}}
            for output in request.outputs
        ]
        return {
            "id": request.id,
            "parameters": _plain(request.parameters) | {"binary_data_output": True},
            "inputs": inputs,
            **({"outputs": outputs} if outputs else {}),
        }


def _plain(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "") for name, value in parameters.items()}


@asynccontextmanager
async def _unary(address: str) -> AsyncGenerator[Unary]:
    async with connect(address) as channel:
        yield Unary(channel)


@asynccontextmanager
async def _stream(address: str, order: str) -> AsyncGenerator[Stream]:
    async with connect(address) as channel, asyncio.TaskGroup() as tasks:
        stream = Stream(channel, tasks, order)
        try:
            yield stream
        finally:
            stream.reading.cancel()


@asynccontextmanager
async def _rest(address: str) -> AsyncGenerator[Rest]:
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60, trust_env=False) as http:
        yield Rest(http)


# Each is opened with the address of the server and with that of the door before it.
TRANSPORTS: Mapping[str, Callable[[str, str], AbstractAsyncContextManager[InferenceTransport]]] = {
    "unary": lambda server, _: _unary(server),
    "stream": lambda server, _: _stream(server, "ready"),
    "stream-in-order": lambda server, _: _stream(server, "request"),
    "unary-envoy": lambda _, door: _unary(door),
    "stream-envoy": lambda _, door: _stream(door, "ready"),
    "rest": lambda _, door: _rest(door),
}


@asynccontextmanager
async def inference_door(server: str, folder: Path) -> AsyncGenerator[str]:
    """Yield the address of a real Envoy before an inference server."""
    port, admin_port = free_ports(2)
    host, _, server_port = server.partition(":")
    program = envoy(
        Door(
            host="127.0.0.1",
            port=port,
            admin_port=admin_port,
            servers={"inference": [(host, int(server_port))]},
            template=UpSettings().envoy_template,
            folder=folder,
            access_log=folder / "access.jsonl",
            web=folder / "no-web",
        )
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(program, folder / "envoy.log"))
        yield f"127.0.0.1:{port}"
