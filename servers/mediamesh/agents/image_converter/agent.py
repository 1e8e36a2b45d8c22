"""The agent: hands on what fits already; else downloads, converts in a thread, gives the bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.agent import Agent
from mediamesh.agents.image_converter.conversion import Form, convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agent import Output, Run
    from mediamesh.api.media.v1.media_pb2 import MediaFacts

__all__ = ["ImageConverter"]


class ImageConverter(Agent):
    """Scales and encodes pictures anew.

    Args:
        max_images: Images held in memory at once; the next run waits for its turn.
        max_pixels: Width times height of an image, at most, before and after.
    """

    def __init__(self, *, max_images: int, max_pixels: int) -> None:
        self._images = asyncio.Semaphore(max_images)
        self._max_pixels = max_pixels

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Convert ``image``."""
        wanted = Form(run.whole("width"), run.whole("height"), run.params.get("format", ""), run.params["fit"])
        given = run.inputs["image"]
        if _fits(given.ref.metadata, wanted):
            return {"image": given}
        async with self._images:
            data = await run.download("image")
            return {"image": await asyncio.to_thread(convert, data, wanted, max_pixels=self._max_pixels)}


def _fits(facts: MediaFacts, wanted: Form) -> bool:
    return bool(
        facts.mime_type
        and wanted.media_type in {"", facts.mime_type}
        and wanted.width in {0, facts.width}
        and wanted.height in {0, facts.height}
    )
