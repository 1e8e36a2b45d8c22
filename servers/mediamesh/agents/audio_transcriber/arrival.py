"""Sound between who brings it and who takes it: what came meanwhile is taken at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mediamesh.agents.audio_transcriber.sound import Samples

__all__ = ["Arrival"]

_MOST = 4 * RATE


class Arrival:
    """Holds some seconds of sound; who brings more waits.

    Small pieces would cost a request each, and whoever lags behind would never catch up.
    """

    def __init__(self) -> None:
        self._held: list[Samples] = []
        self._is_over = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def fill(self, source: AsyncIterator[Samples]) -> None:
        """Bring all that a source has."""
        async for samples in source:
            self._held.append(samples)
            self._news.set()
            while sum(map(len, self._held)) >= _MOST:
                self._room.clear()
                await self._room.wait()
        self._is_over = True
        self._news.set()

    async def take(self) -> Samples | None:
        """Return what is there, after waiting for some; None at the end."""
        while not self._held:
            if self._is_over:
                return None
            self._news.clear()
            await self._news.wait()
        held, self._held = self._held, []
        self._room.set()
        return np.concatenate(held)
