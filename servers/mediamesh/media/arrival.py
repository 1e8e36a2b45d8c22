"""The frames of one upload as they arrive: their order is checked, and their bytes go to a nameless file."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from typing import TYPE_CHECKING

import google_crc32c
from google.rpc import error_details_pb2

from mediamesh.api.media.v1.media_service_pb2 import UploadRequest
from mediamesh.media.formats import HEAD_BYTES, detect
from mediamesh.wire.errors import ChecksumMismatch, InvalidRequest, Overloaded, StreamTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import BinaryIO

    from mediamesh.api.media.v1.media_service_pb2 import UploadChunk, UploadFinish, UploadOpen
    from mediamesh.media.limits import Kind

__all__ = ["Arrival", "Frames"]

# Hashing and writing less than this costs less than passing it to a thread.
_SMALL_BYTES = 32 * 1024
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Frames:
    """The frames of one upload: ``open`` once, chunks, ``finish``, and nothing after it."""

    def __init__(self, frames: AsyncIterator[UploadRequest], *, idle_seconds: float) -> None:
        self._frames = frames
        self._idle_seconds = idle_seconds

    async def opening(self) -> UploadOpen:
        """Return the first frame.

        Raises:
            InvalidRequest: it is no ``open``.
        """
        frame = await self._next()
        if frame is None or frame.WhichOneof("message") != "open":
            came = "no frame" if frame is None else frame.WhichOneof("message")
            raise InvalidRequest.of_field("open", f"an upload begins with it, and {came} came")
        return frame.open

    async def body(self) -> AsyncIterator[UploadChunk | UploadFinish]:
        """Yield the chunks, and ``finish`` when the stream has ended after it.

        Raises:
            InvalidRequest: a frame is out of place.
        """
        while (frame := await self._next()) is not None:
            if frame.WhichOneof("message") == "chunk":
                yield frame.chunk
            elif frame.WhichOneof("message") == "finish":
                if (late := await self._next()) is not None:
                    name = late.WhichOneof("message") or "message"
                    raise InvalidRequest.of_field(name, "came after finish, which ends an upload")
                yield frame.finish
                return
            else:
                raise InvalidRequest.of_field("open", "came again; it is the first frame, and only the first")
        raise InvalidRequest.of_field("finish", "is missing: the stream ended without it, so nothing is stored")

    async def _next(self) -> UploadRequest | None:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await anext(self._frames, None)
        except TimeoutError:
            raise StreamTimeout(
                f"No frame of the upload came for {self._idle_seconds:g} s, the longest pause allowed.",
                limit_seconds=self._idle_seconds,
            ) from None


class Arrival:
    """The bytes of one upload.

    Attributes:
        size_bytes: How many have arrived.
        mime_type: What their begin says; empty before the first.
        sha256: Their digest, 32 bytes; valid when ``finish`` returned.
    """

    def __init__(self, file: BinaryIO, kind: Kind, opening: UploadOpen) -> None:
        self.size_bytes = 0
        self.mime_type = ""
        self.sha256 = b""
        self._file = file
        self._kind = kind
        self._opening = opening
        self._digest = hashlib.sha256()
        self._head = b""

    async def take(self, chunk: UploadChunk) -> None:
        """Check a chunk and keep its bytes.

        Raises:
            InvalidRequest: it is not the next one, or more came than was announced.
            MediaTooLarge: the limit is exceeded.
            UnsupportedMediaType: the begin of the bytes says that it is nothing that is accepted.
            ChecksumMismatch: its bytes are not those that were sent.
            Overloaded: the disk is full.
        """
        if chunk.offset != self.size_bytes:
            raise InvalidRequest.of_field(
                "chunk.offset", f"is {chunk.offset}, and must be {self.size_bytes}, the number of bytes that came"
            )
        after = self.size_bytes + len(chunk.data)
        self._kind.admit_size(after, field="chunk.data", what="the upload has reached")
        if self._opening.size_bytes and after > self._opening.size_bytes:
            raise self._wrong_size(after)
        self.size_bytes = after
        if len(chunk.data) < _SMALL_BYTES:
            self._keep(chunk)
        else:
            await asyncio.to_thread(self._keep, chunk)
        if not self.mime_type and len(self._head) == HEAD_BYTES:
            self._detect()

    async def finish(self, finish: UploadFinish) -> None:
        """Check that all bytes came as they were sent.

        Raises:
            InvalidRequest: none came, or not as many as were announced.
            ChecksumMismatch: they are not those that were sent.
            UnsupportedMediaType: their begin says that it is nothing that is accepted.
        """
        if not self.size_bytes:
            raise InvalidRequest.of_field("chunk.data", "the upload is empty; at least 1 byte is needed")
        if self._opening.size_bytes and self.size_bytes != self._opening.size_bytes:
            raise self._wrong_size(self.size_bytes)
        self.sha256 = self._digest.digest()
        if self.sha256.hex() != finish.sha256:
            raise _mismatch("finish.sha256", f"is {finish.sha256}, and the bytes have {self.sha256.hex()}")
        if not self.mime_type:
            self._detect()

    def _keep(self, chunk: UploadChunk) -> None:
        if chunk.HasField("crc32c") and (found := google_crc32c.value(chunk.data)) != chunk.crc32c:
            raise _mismatch(
                "chunk.crc32c",
                f"is {chunk.crc32c:#010x} at offset {chunk.offset}, and the bytes have {found:#010x}",
            )
        self._digest.update(chunk.data)
        try:
            self._file.write(chunk.data)
            self._file.flush()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise Overloaded.retry(
                f"The disk of the media server has no room for the upload: {error.strerror}.", after_seconds=30.0
            ) from error
        if len(self._head) < HEAD_BYTES:
            self._head += chunk.data[: HEAD_BYTES - len(self._head)]

    def _detect(self) -> None:
        self.mime_type = self._kind.named(detect(self._head))
        self._kind.admit_type(self.mime_type, field="chunk.data", what="the bytes are")

    def _wrong_size(self, size_bytes: int) -> InvalidRequest:
        return InvalidRequest.of_field(
            "open.size_bytes", f"announced {self._opening.size_bytes} bytes, and {size_bytes} came"
        )


def _mismatch(field: str, description: str) -> ChecksumMismatch:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field=field, description=description)
    return ChecksumMismatch(f"{field}: {description}", bad, field=field)
