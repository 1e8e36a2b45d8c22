from __future__ import annotations

import grpc
import pytest

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1 import media_service_pb2_grpc as pb_grpc
from mediamesh.client.channel import connect
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.wire.errors import MediaTooLarge


async def test_a_server_that_refuses_while_the_client_still_sends_is_heard() -> None:
    async def refuse(frames, context):
        got = 0
        async for frame in frames:
            if (got := got + len(frame.chunk.data)) > 1_000_000:
                raise MediaTooLarge("Enough.")

    async def endless():
        while True:
            yield pb.UploadRequest(chunk=pb.UploadChunk(data=bytes(64 * 1024)))

    handler = grpc.stream_unary_rpc_method_handler(
        refuse, pb.UploadRequest.FromString, pb.UploadResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler("mediamesh.api.media.v1.MediaService", {"Upload": handler})
    part = Part(services=[], register=lambda server: server.add_generic_rpc_handlers((service,)))
    settings = ServerSettings(read_ahead_bytes=65_536)  # so that the client's writes wait, and one of them fails
    async with serving(settings, part) as port, connect(f"127.0.0.1:{port}") as channel:
        for _ in range(50):
            with pytest.raises(MediaTooLarge, match="Enough") as raised:
                await pb_grpc.MediaServiceStub(channel).Upload(endless())
            assert raised.value.number == "E1011"
