"""Reads streams as lines of JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from mediamesh.client.edges.text import TextStreams
from mediamesh.wire.errors import StreamInterrupted

if TYPE_CHECKING:
    import httpx

__all__ = ["NdjsonStreams"]

# The largest event as base64, and what is around it.
_LONGEST_LINE = 32 * 1024 * 1024


class NdjsonStreams(TextStreams):
    """Reads streams as lines of JSON."""

    media_type = "application/x-ndjson"

    async def _texts(self, response: httpx.Response) -> AsyncGenerator[str]:
        begun: list[bytes] = []
        size = 0
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as parts:
            async for part in parts:
                *whole, rest = part.split(b"\n")
                for line in whole:
                    yield (b"".join(begun) + line).decode()
                    begun, size = [], 0
                begun.append(rest)
                size += len(rest)
                if size > _LONGEST_LINE:
                    raise StreamInterrupted(f"The answer is damaged: a line of more than {_LONGEST_LINE} bytes.")
