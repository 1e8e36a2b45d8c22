"""Reads facts from pictures: the structure first, then every pixel, in a thread and within a budget."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.kit.to_the_end import to_the_end
from mediamesh.media.foreign import refuse_foreign
from mediamesh.media.outlines import OUTLINES, Outline
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from typing import BinaryIO

    from PIL.ImageFile import ImageFile

    from mediamesh.media.budget import Budget

__all__ = ["PictureLimits", "PictureReader"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_LOG = logging.getLogger(__name__)
# Pillow's classes for exactly these formats; Image.open would try all that it knows.
_DECODERS: Mapping[str, type[ImageFile]] = {
    "image/jpeg": JpegImageFile,
    "image/png": PngImageFile,
    "image/gif": GifImageFile,
    "image/webp": WebPImageFile,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """Bounds that hold before a pixel is decoded.

    Attributes:
        pixels: Width times height.
        frames: Frames of an animation.
        animation_pixels: Width times height times frames.
    """

    pixels: int
    frames: int
    animation_pixels: int


class PictureReader:
    """Reads JPEG, PNG, GIF and WebP."""

    def __init__(self, limits: PictureLimits, threads: Executor, budget: Budget) -> None:
        self._limits = limits
        self._threads = threads
        self._budget = budget

    async def read(self, file: BinaryIO, mime_type: str) -> MediaFacts:
        """Return media type, width and height (as stored, before any rotation that EXIF asks for)."""
        outline = await self._in_thread(_outline, file, mime_type)
        self._admit(outline)
        async with self._budget.reserve(outline.decode_bytes):
            await self._in_thread(_decode, file, mime_type, outline)
        return MediaFacts(mime_type=mime_type, width=outline.width, height=outline.height)

    async def _in_thread(self, work: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
        # A thread cannot be stopped, and the file and the memory that it uses must outlive it.
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments))

    def _admit(self, outline: Outline) -> None:
        size, pixels = f"{outline.width} x {outline.height} pixels", outline.width * outline.height
        if not pixels or not outline.frames:
            raise MediaDecodeFailed.of_field("chunk.data", f"the picture has {size} in {outline.frames} frames")
        if pixels > self._limits.pixels:
            raise _too_large(f"the picture has {size}; the limit is {self._limits.pixels} pixels", self._limits.pixels)
        if outline.frames > self._limits.frames:
            raise _too_large(
                f"the picture has {outline.frames} frames; the limit is {self._limits.frames} frames",
                self._limits.frames,
            )
        if outline.frames > 1 and pixels * outline.frames > self._limits.animation_pixels:
            raise _too_large(
                f"the picture has {outline.frames} frames of {size}; the limit is {self._limits.animation_pixels} "
                "pixels in all frames",
                self._limits.animation_pixels,
            )
        if outline.decode_bytes > self._budget.capacity_bytes:
            raise _too_large(
                f"the picture of {size} takes {outline.decode_bytes} bytes of memory to decode; the limit is "
                f"{self._budget.capacity_bytes} bytes",
                self._budget.capacity_bytes,
            )


def _too_large(text: str, limit: int) -> MediaTooLarge:
    return MediaTooLarge.of_field("chunk.data", text, limit=limit)


def _outline(file: BinaryIO, mime_type: str) -> Outline:
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        outline = OUTLINES[mime_type](data)
        refuse_foreign(data, mime_type, outline.end)
        return outline


def _decode(file: BinaryIO, mime_type: str, outline: Outline) -> None:
    """Decode every frame, to prove that it is whole.

    Raises:
        MediaDecodeFailed: it is not.
    """
    try:
        file.seek(0)
        with _DECODERS[mime_type](file) as picture:
            if picture.size != (outline.width, outline.height):
                raise ValueError("its parts differ in size")  # noqa: TRY301 - as the decoder would say it
            # A JPEG: all coded data is read, and only every eighth pixel is made from it. Other formats do not heed it.
            picture.draft(None, (max(1, outline.width // 8), max(1, outline.height // 8)))
            for frame in range(outline.frames):
                picture.seek(frame)
                picture.load()
    except Exception as error:
        # Hostile bytes bring all kinds of errors out of decoders; each of them says that the picture is no good.
        _LOG.debug("a picture cannot be decoded", exc_info=True)
        raise MediaDecodeFailed.of_field(
            "chunk.data", f"the picture ({mime_type}) cannot be decoded: {error or type(error).__name__}"
        ) from error
