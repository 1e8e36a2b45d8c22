"""A media server that keeps everything in a dictionary, and believes what it is told."""

from __future__ import annotations

import hashlib

from mediamesh.api.media.v1 import media_pb2, media_service_pb2_grpc
from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.wire.errors import NotFound, UnsupportedMediaType


class FakeMedia(media_service_pb2_grpc.MediaServiceServicer):
    def __init__(self) -> None:
        self.stored: dict[str, media_pb2.MediaValue] = {}

    async def Upload(self, request_iterator, context):
        opened, data = pb.UploadOpen(), b""
        async for frame in request_iterator:
            if frame.HasField("open"):
                opened = frame.open
            data += frame.chunk.data
        if data == b"not an image":
            raise UnsupportedMediaType("The bytes are text/plain, and not an image.")
        place = opened.place
        url = "s3://media/" + "/".join(
            (place.workspace_id, place.flow_id, place.execution_id, place.node_id, f"{place.pin_name}_1.bin")
        )
        self.stored[url] = media_pb2.MediaValue(
            type=opened.type,
            ref=media_pb2.MediaReference(
                url=url,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                metadata=media_pb2.MediaFacts(mime_type="image/png", width=1, height=1),
            ),
        )
        return pb.UploadResponse(media=self.stored[url])

    async def Download(self, request, context):
        raise NotFound("Nobody downloads here.")
        yield

    async def Presign(self, request, context):
        raise NotFound("Nobody signs here.")

    async def Stat(self, request, context):
        if request.url not in self.stored:
            raise NotFound(f"There is nothing at {request.url}.")
        return pb.StatResponse(media=self.stored[request.url])
