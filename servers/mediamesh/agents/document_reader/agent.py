"""The agent: pages one after the other, each told as soon as it is read."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf import json_format, struct_pb2

from mediamesh.agent import Agent
from mediamesh.agents.document_reader.documents import pdf_pages
from mediamesh.agents.document_reader.page import Page, arrange
from mediamesh.agents.document_reader.reading import Reading
from mediamesh.agents.document_reader.selection import chosen
from mediamesh.agents.pictures import upright
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Snapshot
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from PIL import Image

    from mediamesh.agent import Output, Run
    from mediamesh.agents.document_reader.reading import TextModels
    from mediamesh.client.inference import InferenceClient

__all__ = ["DocumentReader"]

_MOST_TEXT_BYTES = 1 << 20  # of a value


class DocumentReader(Agent):
    """PP-OCR behind an agent.

    Args:
        inference: The server that has the models.
        models: Their names there.
        max_reading: Pages held in memory at once; the next one waits for its turn.
        max_pages: Most pages of a document that are read in one run.
        max_pixels: Width times height of an image, at most.
    """

    def __init__(
        self, inference: InferenceClient, *, models: TextModels, max_reading: int, max_pages: int, max_pixels: int
    ) -> None:
        self._inference, self._models = inference, models
        self._reading = asyncio.Semaphore(max_reading)
        self._max_pages, self._max_pixels = max_pages, max_pixels

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Emit ``pages`` as they are read; give ``blocks``, ``tables`` and ``text`` of all at the end."""
        given = [pin for pin in ("image", "document") if pin in run.inputs]
        if len(given) != 1:
            text = "give one of image and document, " + ("not both" if given else "there is neither")
            raise InvalidRequest.of_field("inputs", text)
        pages = [page async for page in (self._image(run) if given == ["image"] else self._document(run))]
        return {
            "blocks": [block for page in pages for block in page.blocks],
            "tables": [table for page in pages for table in page.tables],
            "text": _cut("\n\f\n".join(page.text for page in pages)),
        }

    async def _image(self, run: Run) -> AsyncIterator[Page]:
        chosen(run.params["pages"], 1)

        async def picture() -> Image.Image:
            data = await run.download("image")
            return await asyncio.to_thread(upright, data, max_pixels=self._max_pixels)

        yield await self._page(run, picture, number=1, count=1)

    async def _document(self, run: Run) -> AsyncIterator[Page]:
        async with pdf_pages(run.read("document")) as document:
            numbers = chosen(run.params["pages"], document.count)
            if len(numbers) > self._max_pages:
                raise MediaTooLarge(
                    f"The document has {len(numbers)} pages to read; {self._max_pages} are read at once, choose some.",
                    limit=self._max_pages,
                )
            for done, number in enumerate(numbers):
                await run.progress(100 * done / len(numbers), f"page {number} of {document.count}")
                picture = partial(document.picture, number)
                yield await self._page(run, picture, number=number, count=document.count)

    async def _page(self, run: Run, picture: Callable[[], Awaitable[Image.Image]], *, number: int, count: int) -> Page:
        async with self._reading:
            seen = await picture()
            lines = await Reading(self._inference, self._models, seen, run.time_left).lines()
            page = await asyncio.to_thread(arrange, number, seen.size, lines)
        await run.emit("pages", _told(page, count))
        return page


def _told(page: Page, count: int) -> Chunk:
    width, height = page.size
    data = {
        "type": "page",
        "page": page.number,
        "pages": count,
        "width": width,
        "height": height,
        "blocks": page.blocks,
    }
    return Chunk(snapshot=Snapshot(data=json_format.ParseDict(data, struct_pb2.Value())))


def _cut(text: str) -> str:
    """Return the text, or as much as a value holds and an ellipsis."""
    data = text.encode()
    if len(data) <= _MOST_TEXT_BYTES:
        return text
    return data[: _MOST_TEXT_BYTES - 3].decode(errors="ignore") + "…"
