from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1 import media_service_pb2_grpc as pb_grpc
from mediamesh.client.channel import connect
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MeshError, Overloaded


class Failing(pb_grpc.MediaServiceServicer):
    async def Stat(self, request, context):
        raise {"s3://bucket/full": Overloaded.retry("No free slot.", 1.5, queue="gpu0")}.get(
            request.url, ZeroDivisionError("secret")
        )

    async def Download(self, request, context) -> AsyncIterator[pb.DownloadResponse]:
        yield pb.DownloadResponse(data=b"x")
        raise MediaTooLarge("Too large.", limit=3)

    async def Presign(self, request, context):
        return pb.PresignResponse()

    async def Upload(self, request_iterator, context):
        async for _ in request_iterator:
            pass
        return pb.UploadResponse()


@pytest.fixture
async def stub() -> AsyncIterator[pb_grpc.MediaServiceStub]:
    part = Part(
        services=["mediamesh.api.media.v1.MediaService"],
        register=lambda server: pb_grpc.add_MediaServiceServicer_to_server(Failing(), server),
    )
    async with serving(ServerSettings(), part) as port, connect(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.MediaServiceStub(channel)


async def test_an_error_comes_back_as_its_class_with_its_details(stub) -> None:
    with pytest.raises(Overloaded) as raised:
        await stub.Stat(pb.StatRequest(url="s3://bucket/full"))
    assert raised.value.metadata == {"queue": "gpu0"}
    assert raised.value.retry_after == 1.5


async def test_an_error_in_mid_stream_comes_after_what_was_sent(stub) -> None:
    received = []
    with pytest.raises(MediaTooLarge) as raised:
        async for response in stub.Download(pb.DownloadRequest(url="s3://bucket/key")):
            received.append(response.data)
    assert received == [b"x"]
    assert raised.value.number == "E1011"


async def test_a_request_that_breaks_a_rule_names_the_field(stub) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await stub.Stat(pb.StatRequest(url="http://elsewhere"))
    assert [field for field, _ in raised.value.violations] == ["url"]


async def test_a_frame_that_breaks_a_rule_ends_the_stream(stub) -> None:
    async def frames() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(chunk=pb.UploadChunk())

    with pytest.raises(InvalidRequest) as raised:
        await stub.Upload(frames())
    assert [field for field, _ in raised.value.violations] == ["chunk.data"]


async def test_a_fault_of_the_server_keeps_its_cause_to_itself(stub, caplog) -> None:
    with pytest.raises(MeshError) as raised:
        await stub.Stat(pb.StatRequest(url="s3://bucket/broken"))
    assert raised.value.code is grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value)
    assert "secret" in caplog.text
