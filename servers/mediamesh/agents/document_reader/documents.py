"""Pages of a PDF as pictures, one at a time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, TypeVar

import pypdfium2

from mediamesh.kit.pdfium import PDFIUM
from mediamesh.kit.to_the_end import to_the_end
from mediamesh.wire.errors import MediaDecodeFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable

    from PIL import Image

__all__ = ["PdfPages", "pdf_pages"]

T = TypeVar("T")
_POINTS_PER_INCH = 72
_DOTS_PER_INCH = 200
_MOST_PIXELS = 8_000_000  # an A3 page at 200 dpi has 7.7


class PdfPages:
    """A document; PDFium opens, draws and closes it in its own thread, and nobody else touches it.

    Attributes:
        count: How many pages it has; 0 until it is open.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0
        self._document: Any = None

    async def picture(self, number: int) -> Image.Image:
        """Return a page, from 1, in RGB at 200 dpi; coarser where that would be more than 8 million pixels.

        Raises:
            MediaDecodeFailed: the page is damaged.
        """
        return await _on_thread(lambda: _rendered(self._document, number))

    async def open(self) -> None:
        """Open it and count its pages.

        Raises:
            MediaDecodeFailed: it is no PDF, is damaged, or needs a password.
        """
        await _on_thread(self._open)

    async def close(self) -> None:
        """Close it, after whatever the thread still does for a run that is cancelled; then the file may go."""
        await to_the_end(_on_thread(self._close))

    def _open(self) -> None:
        self._file.seek(0)
        self._document = pypdfium2.PdfDocument(self._file)
        self.count = len(self._document)

    def _close(self) -> None:
        if self._document is not None:
            self._document.close()


@asynccontextmanager
async def pdf_pages(pieces: AsyncIterable[bytes]) -> AsyncGenerator[PdfPages]:
    """Open a document for as long as the block lasts; its bytes lie in a file meanwhile, not in memory.

    Args:
        pieces: Its bytes.

    Raises:
        MediaDecodeFailed: it is no PDF, is damaged, or needs a password.
    """
    with TemporaryFile() as file:
        async for piece in pieces:
            await to_the_end(asyncio.to_thread(file.write, piece))
        pages = PdfPages(file)
        try:
            await pages.open()
            yield pages
        finally:
            await pages.close()


async def _on_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(PDFIUM, work)
    except pypdfium2.PdfiumError as error:
        raise MediaDecodeFailed(f"The document cannot be read: {error}") from error


def _rendered(document: Any, number: int) -> Image.Image:
    page = document[number - 1]
    try:
        width, height = page.get_size()
        scale = min(_DOTS_PER_INCH / _POINTS_PER_INCH, (_MOST_PIXELS / max(width * height, 1e-6)) ** 0.5)
        bitmap = page.render(scale=scale, rev_byteorder=True)
        try:
            picture: Image.Image = bitmap.to_pil().convert("RGB").copy()
            return picture
        finally:
            bitmap.close()
    finally:
        page.close()
