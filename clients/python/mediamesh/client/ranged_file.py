"""Media as a file for libraries that read and seek: its bytes come in blocks, when they are asked for.

Decoders run in threads and call ``read`` and ``seek``; the bytes come over the connection of an event loop. The file
stands between: a read in a thread waits for blocks that the loop downloads.
"""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from mediamesh.wire.errors import StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from _typeshed import WriteableBuffer


__all__ = ["RangedFile", "ranged_file"]

_BLOCK_BYTES = 1024 * 1024
# A container is read at two or three places in turn: its index, its pictures, its sound.
_KEPT_BLOCKS = 7


class Fetch(Protocol):
    """Downloads ``limit`` bytes from ``offset`` on; fewer only where the object ends."""

    def __call__(self, offset: int, limit: int) -> Awaitable[bytes]:
        """Return the bytes."""
        ...


@asynccontextmanager
async def ranged_file(fetch: Fetch, size_bytes: int) -> AsyncGenerator[RangedFile]:
    """Yield a file of so many bytes; when the block ends, reads that still wait in threads fail."""
    file = RangedFile(_Blocks(fetch, size_bytes), size_bytes)
    try:
        yield file
    finally:
        await file.leave()


class RangedFile(io.RawIOBase):
    """A file that is read and sought, in any thread but the event loop's, and in one at a time.

    It holds some 8 MiB at most; the MiB behind the one that is read is on its way meanwhile.
    """

    def __init__(self, blocks: _Blocks, size_bytes: int) -> None:
        self._blocks, self._size, self._position = blocks, size_bytes, 0
        self._loop = asyncio.get_running_loop()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position, as files do; nothing is downloaded by it."""
        self._check()
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, less only at the end of the file; wait for the bytes as long as that takes.

        Raises:
            MeshError: the download failed.
            ValueError: the file was closed, maybe while this waited.
            RuntimeError: this is the event loop's thread, which has to do the download.
        """
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target) and self._position < self._size:
            index, begin = divmod(self._position, _BLOCK_BYTES)
            piece = memoryview(self._block(index))[begin : begin + len(target) - done]
            target[done : done + len(piece)] = piece
            done += len(piece)
            self._position += len(piece)
        return done

    async def leave(self) -> None:
        """Close the file in its event loop, and stop what it downloads."""
        self.close()
        await self._blocks.drop()

    def _block(self, index: int) -> bytes:
        self._check()
        if (kept := self._blocks.kept(index)) is not None:
            return kept
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - get_running_loop raises where there is none
            raise RuntimeError("reading blocks: read in a thread, such as asyncio.to_thread gives")
        try:
            return asyncio.run_coroutine_threadsafe(self._when_open(index), self._loop).result()
        except CancelledError:
            raise ValueError("I/O operation on closed file") from None

    async def _when_open(self, index: int) -> bytes:
        self._check()
        return await self._blocks.get(index)

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class _Blocks:
    """The blocks that a file holds or waits for, in its event loop."""

    def __init__(self, fetch: Fetch, size_bytes: int) -> None:
        self._fetch, self._size = fetch, size_bytes
        self._tasks: OrderedDict[int, asyncio.Task[bytes]] = OrderedDict()
        self._last: tuple[int, bytes] = (-1, b"")

    def kept(self, index: int) -> bytes | None:
        """Return the block that was read last, without a way through the event loop: most reads are small."""
        last, data = self._last
        return data if last == index else None

    async def get(self, index: int) -> bytes:
        """Return a block, and have the next one come."""
        task = self._task(index)
        if (index + 1) * _BLOCK_BYTES < self._size:
            self._task(index + 1)
        self._tasks.move_to_end(index)
        await self._make_room()
        try:
            data = await asyncio.shield(task)
        except BaseException:
            self._tasks.pop(index, None)  # so that another read tries again
            raise
        self._last = (index, data)
        return data

    async def drop(self) -> None:
        """Stop every download and forget every block."""
        tasks, self._last = list(self._tasks.values()), (-1, b"")
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        # Also fetches what went wrong with blocks that nobody read in the end.
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, index: int) -> asyncio.Task[bytes]:
        if index not in self._tasks:
            self._tasks[index] = asyncio.ensure_future(self._download(index))
        return self._tasks[index]

    async def _make_room(self) -> None:
        while len(self._tasks) > _KEPT_BLOCKS:
            _, task = self._tasks.popitem(last=False)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _download(self, index: int) -> bytes:
        offset = index * _BLOCK_BYTES
        limit = min(_BLOCK_BYTES, self._size - offset)
        data = await self._fetch(offset, limit)
        if len(data) != limit:
            raise StreamInterrupted(
                f"{len(data)} bytes came from offset {offset} on, and {limit} should have.", offset=offset
            )
        return data
