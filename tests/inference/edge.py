"""Speaks to the REST twin as Envoy does, without Envoy: a request of HTTP as a call of the edge's service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message_factory import GetMessageClass

from mediamesh.api.inference.v2 import inference_edge_service_pb2 as edge_pb

__all__ = ["Answer", "Edge"]

SERVICE = edge_pb.DESCRIPTOR.services_by_name["InferenceEdgeService"]


@dataclass(frozen=True)
class Answer:
    """An answer as a client of HTTP gets it."""

    status: int
    headers: Mapping[str, str]
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"], self.json
        return str(self.json["error"])


class Edge:
    """Calls the methods of the edge by name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __call__(
        self,
        method: str,
        name: str = "",
        *,
        version: str = "",
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a method; a body that is no bytes becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = SERVICE.methods_by_name[method]
        given: dict[str, Any] = {"name": name, "version": version, "body": HttpBody(data=content)}
        known = own.input_type.fields_by_name
        kind: Any = GetMessageClass(own.input_type)
        request = kind(**{key: value for key, value in given.items() if key in known})
        path, metadata = f"/{SERVICE.full_name}/{method}", list((headers or {}).items())
        if own.client_streaming:
            open_stream: Any = self._channel.stream_stream(path, response_deserializer=HttpBody.FromString)
            call = open_stream(self._in_pieces(request, content), metadata=metadata)
        elif own.server_streaming:
            call = self._channel.unary_stream(path, response_deserializer=HttpBody.FromString)(
                request.SerializeToString(), metadata=metadata
            )
        else:
            call = self._channel.unary_unary(path, response_deserializer=HttpBody.FromString)(
                request.SerializeToString(), metadata=metadata
            )
            part = await call
            return _answer(dict(await call.initial_metadata()), [part])
        parts = [part async for part in call]
        return _answer(dict(await call.initial_metadata()), parts)

    async def _in_pieces(self, request: Any, content: bytes) -> AsyncIterator[bytes]:
        # Envoy writes name and version into the first message only.
        request.body.data = content[:10]
        yield request.SerializeToString()
        for at in range(10, len(content), 65536):
            yield edge_pb.InferenceEdgeRequest(body=HttpBody(data=content[at : at + 65536])).SerializeToString()


def _answer(headers: dict[str, Any], parts: list[HttpBody]) -> Answer:
    status = int(headers.pop("mediamesh-http-status", 200))
    return Answer(status, headers, parts[0].content_type, b"".join(part.data for part in parts))
