"""A client of the media store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType, MediaValue
from mediamesh.api.media.v1.media_service_pb2 import (
    DownloadRequest,
    MediaPlace,
    PresignRequest,
    PresignResponse,
    StatRequest,
    StatResponse,
    UploadChunk,
    UploadFinish,
    UploadOpen,
    UploadRequest,
)
from mediamesh.api.media.v1.media_service_pb2_grpc import MediaServiceStub
from mediamesh.client.ranged_file import ranged_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from mediamesh.client.ranged_file import RangedFile

__all__ = ["MediaClient"]

# Between 64 KiB and 1 MiB the cost of a byte is the same; below it grows, and above the contract ends.
_CHUNK_BYTES = 256 * 1024


class MediaClient:
    """Stores media and reads it; every method raises classes of :mod:`mediamesh.wire.errors`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = MediaServiceStub(channel)

    async def upload(
        self,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: MediaType.ValueType,
        place: MediaPlace,
        declared: MediaFacts | None = None,
        filename: str = "",
        timeout: float | None = None,
    ) -> MediaValue:
        """Store the bytes and return the reference to them, with the facts read from them.

        Args:
            data: All bytes at once, or pieces of any size as they come.
            media_type: Kind of media.
            place: Where the object belongs.
            declared: Facts that the bytes must agree with.
            filename: Name of the file they come from, for people.
            timeout: Longest time it may take, in seconds.

        Raises:
            UnsupportedMediaType: the bytes are nothing that is accepted, or not what is declared.
            MediaTooLarge: a limit is exceeded.
            MediaDecodeFailed: the bytes are damaged.
            Exception: whatever ``data`` raises; nothing is stored then.
        """
        opening = UploadOpen(type=media_type, declared=declared, place=place, filename=filename)
        if isinstance(data, bytes):
            opening.size_bytes = len(data)
        frames = _Frames(opening, data)
        try:
            response = await self._stub.Upload(frames.all(), timeout=timeout)
        except BaseException as failure:
            # grpc cancels a call whose request iterator fails, and keeps the cause to its log.
            if frames.failure is not None:
                raise frames.failure from failure
            raise
        return response.media

    async def read(
        self, url: str, *, offset: int = 0, limit: int = 0, timeout: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes from ``offset`` on, at most ``limit`` of them if it is not 0, in pieces of 256 KiB at most.

        Raises:
            NotFound: there is no such object.
            OutOfRange: the offset lies beyond its end.
        """
        call = self._stub.Download(DownloadRequest(url=url, offset=offset, limit=limit), timeout=timeout)
        try:
            async for response in call:
                yield response.data
        finally:
            # A reader that stops early must not leave the server sending.
            call.cancel()

    async def download(self, url: str, *, offset: int = 0, limit: int = 0, timeout: float | None = None) -> bytes:
        """Return the bytes that :meth:`read` yields, in one."""
        return b"".join([piece async for piece in self.read(url, offset=offset, limit=limit, timeout=timeout)])

    @asynccontextmanager
    async def open(
        self, url: str, *, size_bytes: int = 0, timeout: Callable[[], float | None] = lambda: None
    ) -> AsyncGenerator[RangedFile]:
        """Open the bytes as a file that threads read and seek, as decoders want it; only what is read is downloaded.

        Args:
            url: Address of the object.
            size_bytes: Its size as its reference says; 0 asks for it.
            timeout: Gives the longest time that the download of a block may take, in seconds.

        Raises:
            NotFound: there is no such object.
        """
        size = size_bytes or (await self.stat(url)).media.ref.size_bytes

        async def fetch(offset: int, limit: int) -> bytes:
            return await self.download(url, offset=offset, limit=limit, timeout=timeout())

        async with ranged_file(fetch, size) as file:
            yield file

    async def stat(self, url: str) -> StatResponse:
        """Tell what is stored under an address.

        Raises:
            NotFound: nothing is.
        """
        return await self._stub.Stat(StatRequest(url=url))

    async def presign(self, request: PresignRequest) -> PresignResponse:
        """Return a signed address at which bytes are read or written without the mesh."""
        return await self._stub.Presign(request)


class _Frames:
    """The frames of one upload, made from its bytes as they come."""

    def __init__(self, opening: UploadOpen, data: bytes | AsyncIterable[bytes]) -> None:
        self._opening = opening
        self._data = data
        self.failure: Exception | None = None

    async def all(self) -> AsyncIterator[UploadRequest]:
        yield UploadRequest(open=self._opening)
        digest, offset = hashlib.sha256(), 0
        try:
            async for piece in _pieces(self._data):
                digest.update(piece)
                yield UploadRequest(chunk=UploadChunk(offset=offset, data=piece))
                offset += len(piece)
        except Exception as error:
            self.failure = error
            raise
        yield UploadRequest(finish=UploadFinish(sha256=digest.hexdigest()))


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut and join, so that pieces are neither costly for being small nor too large for a frame."""
    if isinstance(data, bytes):
        for begin in range(0, len(data), _CHUNK_BYTES):
            yield data[begin : begin + _CHUNK_BYTES]
        return
    held = bytearray()
    async for piece in data:
        held += piece
        while len(held) >= _CHUNK_BYTES:
            yield bytes(held[:_CHUNK_BYTES])
            del held[:_CHUNK_BYTES]
    if held:
        yield bytes(held)
