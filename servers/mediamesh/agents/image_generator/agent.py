"""The agent: draws in a thread."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from mediamesh.agent import Agent
from mediamesh.agents.image_generator.pattern import draw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agent import Output, Run

__all__ = ["ImageGenerator"]


class ImageGenerator(Agent):
    """Gives a picture for tests."""

    def __init__(self) -> None:
        self._drawing = asyncio.Semaphore(os.cpu_count() or 1)

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Draw ``image``."""
        width, height = run.whole("width"), run.whole("height")
        async with self._drawing:
            return {"image": await asyncio.to_thread(_png, run.params["pattern"], width, height)}


def _png(pattern: str, width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(draw(pattern, width, height)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
