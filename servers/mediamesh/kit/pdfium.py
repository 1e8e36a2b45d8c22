"""The one thread of a process in which PDFium runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

__all__ = ["PDFIUM"]

# PDFium keeps fonts and glyphs for the whole process and guards none of it: pages drawn in two threads at once lose
# letters, or the process is killed. All who call it do so here, so parts in one process need not know of each other.
PDFIUM = ThreadPoolExecutor(1, thread_name_prefix="pdfium")
