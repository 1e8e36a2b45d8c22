"""Pages of a PDF as pictures, one at a time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, TypeVar

import pypdfium2

from mediamesh.kit.pdfium import PDFIUM
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
    """An open document.

    Attributes:
        count: How many pages it has.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        self.count = len(document)

    async def picture(self, number: int) -> Image.Image:
        """Return a page, from 1, in RGB at 200 dpi; coarser where that would be more than 8 million pixels.

        Raises:
            MediaDecodeFailed: the page is damaged.
        """
        return await _on_thread(lambda: _rendered(self._document, number))


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
            await asyncio.to_thread(file.write, piece)
        document = await _on_thread(lambda: _opened(file))
        try:
            yield PdfPages(document)
        finally:
            # In the thread, and so after a page that is still being drawn when the run is cancelled.
            await asyncio.shield(_on_thread(document.close))


async def _on_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(PDFIUM, work)
    except pypdfium2.PdfiumError as error:
        raise MediaDecodeFailed(f"The document cannot be read: {error}") from error


def _opened(file: IO[bytes]) -> Any:
    file.seek(0)
    return pypdfium2.PdfDocument(file)


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
