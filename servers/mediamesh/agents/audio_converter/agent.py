"""The agent: hands on what fits already; else decodes, resamples and encodes in a thread."""

from __future__ import annotations

import asyncio
import threading
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING

from mediamesh.agent import Agent
from mediamesh.agents.audio_converter.conversion import MEDIA_TYPES, Form, convert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mediamesh.agent import Output, Run
    from mediamesh.api.media.v1.media_pb2 import MediaFacts

__all__ = ["AudioConverter"]

_IN_MEMORY_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 512 * 1024


class AudioConverter(Agent):
    """Resamples, mixes and encodes sounds anew.

    Args:
        max_sounds: Sounds converted at once; the next run waits for its turn.
        max_bytes: Most bytes that a conversion may give.
    """

    def __init__(self, *, max_sounds: int, max_bytes: int) -> None:
        self._sounds = asyncio.Semaphore(max_sounds)
        self._max_bytes = max_bytes

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Convert ``audio``."""
        given = run.inputs["audio"]
        facts: MediaFacts = given.ref.metadata
        asked = run.params.get("format", "")
        wanted = Form(run.whole("rate"), run.whole("channels"), asked or _own(facts.mime_type))
        if _fits(facts, wanted, asked):
            return {"audio": given}
        with SpooledTemporaryFile(_IN_MEMORY_BYTES) as target:
            async with self._sounds:
                await self._convert(run, target, wanted)
            target.seek(0)
            await run.give("audio", _pieces(target))
        return {}

    async def _convert(self, run: Run, target: IO[bytes], wanted: Form) -> None:
        stop = threading.Event()
        async with run.open("audio") as source:
            # Shielded, as the thread must be out of both files before they close.
            work = asyncio.ensure_future(
                asyncio.to_thread(convert, source, target, wanted, max_bytes=self._max_bytes, stop=stop)
            )
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                stop.set()
                source.close()
                await asyncio.wait({work})
                raise


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece


def _own(media_type: str) -> str:
    return media_type if media_type in MEDIA_TYPES else "audio/wav"


def _fits(facts: MediaFacts, wanted: Form, asked: str) -> bool:
    return bool(
        facts.mime_type
        and asked in {"", facts.mime_type}
        and wanted.rate in {0, facts.sample_rate_hz}
        and wanted.channels in {0, facts.channels}
    )
