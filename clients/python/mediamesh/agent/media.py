"""The bytes of media inputs."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from mediamesh.wire.errors import FailedPrecondition, MediaTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from typing import BinaryIO

    from mediamesh.api.media.v1.media_pb2 import MediaValue
    from mediamesh.client.media import MediaClient

__all__ = ["MediaSource"]


class MediaSource:
    """Reads media values, wherever their bytes are.

    Args:
        client: The media service; None where the server was given no address of one.
        max_bytes: Most bytes of one value.
    """

    def __init__(self, client: MediaClient | None, *, max_bytes: int) -> None:
        self._client, self._max_bytes = client, max_bytes

    async def read(self, value: MediaValue, *, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the bytes in order.

        Raises:
            MediaTooLarge: there are more than a run may download.
            FailedPrecondition: they are in the store, and this server does not know where that is.
        """
        if value.HasField("inline"):
            yield value.inline
            return
        client = self._known()
        self._check(value.ref.size_bytes)
        read = 0
        async for piece in client.read(value.ref.url, timeout=timeout):
            read += len(piece)
            self._check(read)
            yield piece

    @asynccontextmanager
    async def open(self, value: MediaValue, *, timeout: Callable[[], float | None]) -> AsyncGenerator[BinaryIO]:
        """Yield the bytes as a file to read and seek in a thread; ``timeout`` gives the seconds that are left.

        Raises:
            MediaTooLarge: there are more than a run may download.
            NotFound: the store does not have them.
            FailedPrecondition: they are in the store, and this server does not know where that is.
        """
        if value.HasField("inline"):
            yield io.BytesIO(value.inline)
            return
        self._check(value.ref.size_bytes)
        async with self._known().open(value.ref.url, size_bytes=value.ref.size_bytes, timeout=timeout) as file:
            yield cast("BinaryIO", file)  # RawIOBase is one in all but its name

    def _known(self) -> MediaClient:
        if self._client is None:
            raise FailedPrecondition("This agent server knows no media service: its setting media_address is empty.")
        return self._client

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise MediaTooLarge(
                f"A run may download media of at most {self._max_bytes} bytes; this has {size} or more.",
                limit=self._max_bytes,
            )
