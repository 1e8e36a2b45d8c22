"""The media service on the wire."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mediamesh.api.media.v1.media_service_pb2_grpc import MediaServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc

    from mediamesh.api.media.v1 import media_service_pb2 as pb
    from mediamesh.media.download import Downloads, Links
    from mediamesh.media.upload import Uploads

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["MediaService"]


class MediaService(MediaServiceServicer):
    """Stores media, checks it, and hands it out again.

    A caller's deadline and its leaving both cancel the call here; what the call held is released.
    """

    def __init__(self, uploads: Uploads, downloads: Downloads, links: Links) -> None:
        self._uploads = uploads
        self._downloads = downloads
        self._links = links

    async def Upload(self, request_iterator: AsyncIterator[pb.UploadRequest], context: Context) -> pb.UploadResponse:
        """Store one object."""
        return await self._uploads.receive(request_iterator)

    async def Download(self, request: pb.DownloadRequest, context: Context) -> AsyncGenerator[pb.DownloadResponse]:
        """Read an object, or a part of it."""
        async with aclosing(self._downloads.read(request.url, offset=request.offset, limit=request.limit)) as pieces:
            async for piece in pieces:
                yield piece

    async def Stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:
        """Tell what is stored."""
        return await self._downloads.stat(request.url)

    async def Presign(self, request: pb.PresignRequest, context: Context) -> pb.PresignResponse:
        """Sign an address."""
        return await self._links.sign(request)
