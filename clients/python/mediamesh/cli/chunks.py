"""What `mediamesh stream publish` sends: lines of text, or the pieces of a file."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import threading
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mediamesh.api.media.v1 import media_pb2
from mediamesh.api.stream.v1.chunk_pb2 import MEDIA_ENCODING_BINARY, Chunk, Media, MediaMetadata, TextContent
from mediamesh.wire.errors import InvalidRequest

__all__ = ["FilePieces", "lines"]

PIECE_BYTES = 64 * 1024
# Four bytes a character at most, so that a piece keeps to the 64 KiB of the contract.
_PIECE_CHARACTERS = 16 * 1024
_SOURCE = "mediamesh stream publish"
_LINES_AHEAD = 64


@dataclass(frozen=True)
class FilePieces:
    """A file as chunks of media.

    Attributes:
        path: The file.
        mime_type: Its media type.
        size: Its bytes.
        checksum: Their SHA-256.
    """

    path: Path
    mime_type: str
    size: int
    checksum: str

    @classmethod
    def of(cls, path: Path, mime_type: str = "") -> FilePieces:
        """Look at a file.

        Raises:
            InvalidRequest: it cannot be read, or is empty.
        """
        try:
            with path.open("rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise InvalidRequest.of_field("--file", f"{path} cannot be read: {error.strerror}") from error
        if not size:
            raise InvalidRequest.of_field("--file", f"{path} is empty")
        known = mime_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(path, known, size, checksum)

    @property
    def count(self) -> int:
        """How many chunks the file makes."""
        return -(-self.size // PIECE_BYTES)

    def chunks(self, begin: int = 0) -> Iterator[Chunk]:
        """Yield the chunks from the one with this index on.

        Raises:
            InvalidRequest: the file got shorter meanwhile.
        """
        with self.path.open("rb") as file:
            file.seek(begin * PIECE_BYTES)
            for index in range(begin, self.count):
                data = file.read(PIECE_BYTES)
                if len(data) != min(PIECE_BYTES, self.size - index * PIECE_BYTES):
                    raise InvalidRequest.of_field("--file", f"{self.path} was changed while it was sent")
                yield Chunk(source=_SOURCE, media=self._piece(index, data))

    def _piece(self, index: int, data: bytes) -> Media:
        return Media(
            media_type=_media_type(self.mime_type),
            encoding=MEDIA_ENCODING_BINARY,
            binary=data,
            metadata=MediaMetadata(
                mime_type=self.mime_type, size_bytes=self.size, filename=self.path.name, checksum=self.checksum
            ),
            is_partial=index < self.count - 1,
            chunk_index=index,
            total_chunks=self.count,
        )


async def lines(file: BinaryIO) -> AsyncGenerator[Chunk]:
    """Yield the lines of a file as chunks of text, as they come; a very long one in pieces."""
    async for line in _as_they_come(file):
        text = line.decode(errors="replace")
        for begin in range(0, len(text), _PIECE_CHARACTERS):
            yield Chunk(source=_SOURCE, content=TextContent(text=text[begin : begin + _PIECE_CHARACTERS]))


async def _as_they_come(file: BinaryIO) -> AsyncGenerator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(_LINES_AHEAD)
    loop = asyncio.get_running_loop()
    # Python flushes standard streams when it ends, and aborts where a thread holds one of them; this buffer is nobody's
    # but the thread's.
    own = open(file.fileno(), "rb", closefd=False)  # noqa: ASYNC230, SIM115 - by descriptor, and never closed

    def read() -> None:
        try:
            for line in iter(own.readline, b""):
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(queue.put(b""), loop).result()
        except RuntimeError:
            return  # the loop is closed: nobody reads any more

    # Standard input may be a terminal, a pipe or a file, and only a thread can wait for all of them. It is left behind
    # when the command ends, as nothing can wake it.
    threading.Thread(target=read, daemon=True).start()
    while line := await queue.get():
        yield line


def _media_type(mime_type: str) -> media_pb2.MediaType.ValueType:
    match mime_type.split("/"):
        case ["image", _]:
            return media_pb2.MEDIA_TYPE_IMAGE
        case ["audio", _]:
            return media_pb2.MEDIA_TYPE_AUDIO
        case ["video", _]:
            return media_pb2.MEDIA_TYPE_VIDEO
        case ["text", _] | ["application", "pdf"]:
            return media_pb2.MEDIA_TYPE_DOCUMENT
    return media_pb2.MEDIA_TYPE_FILE
