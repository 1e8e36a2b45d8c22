from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from mediamesh.client.channel import connect, error_of
from mediamesh.wire.errors import MeshError, NotFound, Unavailable


def test_a_failure_whose_status_nobody_can_read_is_what_it_says_beside_it() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff"))
    failure = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "Gone.")
    error = error_of(failure)
    assert type(error) is NotFound
    assert error.text == "Gone."


class Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        async def echo(request, context):
            await asyncio.sleep(0)
            return request

        return grpc.unary_unary_rpc_method_handler(echo, Empty.FromString, Empty.SerializeToString)


async def test_a_call_that_a_stopping_server_does_not_take_finds_it_unavailable() -> None:
    """gRPC calls it cancelled, which nobody has done."""
    met: list[MeshError] = []

    async def call(echo, called: asyncio.Event) -> None:
        with pytest.raises(MeshError) as caught:
            while True:
                await echo(Empty(), timeout=20)
                called.set()
        met.append(caught.value)

    for _ in range(5):
        server = grpc.aio.server(handlers=[Echo()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        called = asyncio.Event()
        async with connect(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as group:
            echo = channel.unary_unary(
                "/test.Echo/Echo", request_serializer=Empty.SerializeToString, response_deserializer=Empty.FromString
            )
            for _ in range(40):
                group.create_task(call(echo, called))
            await called.wait()
            await server.stop(20)
    assert {type(error) for error in met} == {Unavailable}
