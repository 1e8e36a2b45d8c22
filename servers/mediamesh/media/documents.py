"""Reads facts from PDFs: that the file is whole, and how many pages it has."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING

import pypdfium2
import pypdfium2.raw

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.kit.pdfium import PDFIUM
from mediamesh.kit.to_the_end import to_the_end
from mediamesh.media.foreign import refuse_foreign
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge

if TYPE_CHECKING:
    from typing import BinaryIO

    from mediamesh.media.budget import Budget

__all__ = ["DocumentLimits", "DocumentReader"]

_LOG = logging.getLogger(__name__)
# Readers look for the end mark in the last kilobyte (ISO 32000-1, annex H.3, implementation note 18).
_TAIL_BYTES = 1024
_END = re.compile(rb"startxref\s+\d+\s+%%EOF[\r\n\0 ]*")
# PDFium's own tables for as many pages as are taken, measured; it holds no page and no picture.
_HELD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """Bounds of a document.

    Attributes:
        pages: How many it has.
    """

    pages: int


class DocumentReader:
    """Reads PDFs, one at a time."""

    def __init__(self, limits: DocumentLimits, budget: Budget) -> None:
        self._limits, self._budget = limits, budget

    async def read(self, file: BinaryIO, mime_type: str) -> MediaFacts:
        """Return media type and number of pages; the structure of each page is looked at, no page is drawn."""
        async with self._budget.reserve(_HELD_BYTES):
            left = threading.Event()
            work = asyncio.get_running_loop().run_in_executor(PDFIUM, self._pages, file, left)
            return MediaFacts(mime_type=mime_type, pages=await to_the_end(work, left))

    def _pages(self, file: BinaryIO, left: threading.Event) -> int:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            refuse_foreign(data, "application/pdf", _end(data))
        file.seek(0)
        try:
            with pypdfium2.PdfDocument(file) as document:
                pages = len(document)
                if pages > self._limits.pages:
                    raise MediaTooLarge.of_field(
                        "chunk.data",
                        f"the document has {pages} pages; the limit is {self._limits.pages} pages",
                        limit=self._limits.pages,
                    )
                for index in range(pages):
                    if left.is_set():
                        break
                    document.get_page_size(index)
        except pypdfium2.PdfiumError as error:
            _LOG.debug("a document cannot be read", exc_info=True)
            raise _failed(error) from error
        if not pages:
            raise _damaged("it has no pages")
        return pages


def _end(data: mmap) -> int:
    """Return where a PDF ends.

    Raises:
        MediaDecodeFailed: its end mark is missing.
    """
    begin = max(0, len(data) - _TAIL_BYTES)
    ends = [begin + found.end() for found in _END.finditer(data[begin:])]
    if not ends:
        raise _damaged(f"its end mark (%%EOF) is missing from its last {_TAIL_BYTES} bytes")
    return ends[-1]


def _failed(error: pypdfium2.PdfiumError) -> MediaDecodeFailed:
    if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
        return MediaDecodeFailed.of_field("chunk.data", "the document is locked with a password; take that off first")
    return _damaged(str(error))


def _damaged(what: str) -> MediaDecodeFailed:
    return MediaDecodeFailed.of_field("chunk.data", f"the document is damaged or cut off: {what}")
