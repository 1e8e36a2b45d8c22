"""Reads streams as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.client.edges.text import TextStreams

try:
    from httpx_sse import EventSource
except ImportError as missing:  # pragma: no cover - the extra is installed where tests run
    raise ImportError(
        "Streams as Server-Sent Events need httpx-sse; pip install 'mediamesh[edges]' brings it."
    ) from missing

if TYPE_CHECKING:
    import httpx

__all__ = ["SseStreams"]


class SseStreams(TextStreams):
    """Reads streams as Server-Sent Events."""

    media_type = "text/event-stream"

    async def _texts(self, response: httpx.Response) -> AsyncGenerator[str]:
        async with aclosing(EventSource(response).aiter_sse()) as events:
            async for event in events:
                if event.data:
                    yield event.data
