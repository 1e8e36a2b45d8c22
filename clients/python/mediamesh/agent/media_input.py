"""Media as plain functions take it: annotate a parameter ``Image``, ``Audio``, ``Video`` or ``Document``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mediamesh.api.agent.v1.pin_pb2 import PinType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from typing import BinaryIO

    from mediamesh.agent.run import Run
    from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaValue

__all__ = ["Audio", "Document", "Image", "MediaInput", "Video"]


class MediaInput:
    """A media input of one run; its bytes stay where they are until they are read.

    Attributes:
        value: The reference, or the bytes where they came inline.
    """

    pin_type: ClassVar[PinType.ValueType]

    def __init__(self, run: Run, pin: str) -> None:
        self._run, self._pin = run, pin
        self.value: MediaValue = run.inputs[pin]

    @property
    def facts(self) -> MediaFacts:
        """What the store read from the bytes, such as width and height; empty for media that came inline."""
        return self.value.ref.metadata

    async def download(self) -> bytes:
        """Return all bytes.

        Raises:
            MediaTooLarge: they exceed what this server lets a run download.
            NotFound: the store does not have them.
        """
        return await self._run.download(self._pin)

    def read(self) -> AsyncIterator[bytes]:
        """Iterate over the bytes without holding all of them."""
        return self._run.read(self._pin)

    def open(self) -> AbstractAsyncContextManager[BinaryIO]:
        """Open it as a file that is read and sought in a thread, for the length of an ``async with`` block."""
        return self._run.open(self._pin)


class Image(MediaInput):
    """A still picture."""

    pin_type = PinType.PIN_TYPE_IMAGE


class Audio(MediaInput):
    """Sound."""

    pin_type = PinType.PIN_TYPE_AUDIO


class Video(MediaInput):
    """Moving pictures."""

    pin_type = PinType.PIN_TYPE_VIDEO


class Document(MediaInput):
    """A paged document."""

    pin_type = PinType.PIN_TYPE_DOCUMENT
