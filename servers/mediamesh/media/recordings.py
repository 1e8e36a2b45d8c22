"""Reads facts from sound and film: the structure first, then the bytes as a decoder sees them, in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, TypeVar

from av.error import FFmpegError

from mediamesh.kit.to_the_end import to_the_end
from mediamesh.media.foreign import refuse_foreign
from mediamesh.media.structures import STRUCTURES
from mediamesh.media.tracks import damaged, opened, pixels_of
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Executor
    from typing import BinaryIO

    from av.container import InputContainer

    from mediamesh.api.media.v1.media_pb2 import MediaFacts
    from mediamesh.media.budget import Budget
    from mediamesh.media.structures import Structure
    from mediamesh.media.tracks import RecordingLimits

    # What reads the facts of an open recording; see read_sound and read_film.
    Read = Callable[[InputContainer, RecordingLimits, Callable[[], None]], MediaFacts]

__all__ = ["RecordingReader"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
# What FFmpeg holds beside the pictures: its buffers, and an index of two million samples.
_HELD_BYTES = 64 * 1024 * 1024
# A decoder of film keeps up to 17 pictures, of 12 bits a pixel.
_HELD_BYTES_PER_PIXEL = 26


class RecordingReader:
    """Reads sound, or film with or without sound.

    All of a sound is decoded. Of a film every packet is read, and its first picture is decoded: decoding all of them
    would take minutes, and the structure shows already that it is whole.
    """

    def __init__(self, read: Read, limits: RecordingLimits, threads: Executor, budget: Budget) -> None:
        self._read, self._limits, self._threads, self._budget = read, limits, threads, budget

    async def read(self, file: BinaryIO, mime_type: str) -> MediaFacts:
        """Return media type, codec and duration; of sound its rate and channels, of film also size and frame rate."""
        structure, pixels = await self._in_thread(lambda go_on: self._outline(file, mime_type, go_on))
        held = _HELD_BYTES + _HELD_BYTES_PER_PIXEL * pixels
        if held > self._budget.capacity_bytes:
            raise MediaTooLarge.of_field(
                "chunk.data",
                f"the recording of {pixels} pixels takes {held} bytes of memory to decode; the limit is "
                f"{self._budget.capacity_bytes} bytes",
                limit=self._budget.capacity_bytes,
            )
        async with self._budget.reserve(held):
            facts = await self._in_thread(lambda go_on: self._facts(file, mime_type, pixels, go_on))
        samples = round(facts.duration_seconds * facts.sample_rate_hz)
        if samples < structure.samples:
            raise damaged(f"{samples} samples are there, and it says that it has {structure.samples}")
        facts.mime_type = mime_type
        return facts

    async def _in_thread(self, work: Callable[[Callable[[], None]], T]) -> T:
        # The file must outlive the thread, so that is waited for; it looks at each packet whether the caller has left.
        left, end = threading.Event(), time.monotonic() + self._limits.work_seconds

        def go_on() -> None:
            if left.is_set():
                raise _Left
            if time.monotonic() > end:
                raise MediaTooLarge.of_field(
                    "chunk.data",
                    f"reading the recording takes longer than {self._limits.work_seconds:g} s, the limit",
                    limit_seconds=self._limits.work_seconds,
                )

        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._threads, work, go_on), left)

    def _outline(self, file: BinaryIO, mime_type: str, go_on: Callable[[], None]) -> tuple[Structure, int]:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            structure = STRUCTURES[mime_type](data, go_on)
            refuse_foreign(data, mime_type, structure.end)
        with _hostile(mime_type), opened(file, mime_type, pixels=self._limits.pixels) as container:
            return structure, pixels_of(container, self._limits)

    def _facts(self, file: BinaryIO, mime_type: str, pixels: int, go_on: Callable[[], None]) -> MediaFacts:
        with _hostile(mime_type), opened(file, mime_type, pixels=pixels) as container:
            return self._read(container, self._limits, go_on)


class _Left(Exception):  # noqa: N818 - no error: the caller has gone, and nobody sees it
    """Ends the work in a thread whose caller has left."""


@contextmanager
def _hostile(mime_type: str) -> Generator[None]:
    """Hostile bytes bring all kinds of errors out of decoders; each of them says that the recording is no good."""
    try:
        yield
    except (MeshError, _Left):
        raise
    except Exception as error:
        _LOG.debug("a recording cannot be decoded", exc_info=True)
        text = error.strerror if isinstance(error, FFmpegError) else str(error)
        raise MediaDecodeFailed.of_field(
            "chunk.data", f"the recording ({mime_type}) cannot be decoded: {text or type(error).__name__}"
        ) from error
