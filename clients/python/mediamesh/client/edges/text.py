"""Reads streams as text: what Server-Sent Events and lines of JSON have in common."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar, Self

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamGoAway
from mediamesh.client.edges.http import check_over, http_client, is_at_the_end, reading
from mediamesh.client.streams.reading import Frame, Place, is_last, resumed
from mediamesh.wire.errors import InvalidRequest, MeshError, OutOfRange, StreamInterrupted
from mediamesh.wire.stream_json import frame_from_object
from mediamesh.wire.strict_json import loads

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

__all__ = ["TextStreams", "frame_of"]


class TextStreams:
    """Reads streams at a door; an async context manager.

    Args:
        target: ``host:port`` of the door, or its address.
        silence: Seconds without a byte after which a connection counts as broken; more than the heartbeats of the
            streams take, which is 15 s where nothing else is said.
    """

    media_type: ClassVar[str]

    def __init__(self, target: str = "127.0.0.1:8080", *, silence: float = 40.0) -> None:
        self._http = http_client(target, silence)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def subscribe(
        self,
        stream_id: str,
        *,
        after_sequence: int = 0,
        subscriber_id: str = "",
        allow_gap: bool = False,
        patience: float = 60.0,
    ) -> AsyncGenerator[StreamEvent | StreamGap]:
        """Yield the events of a stream, each once and in order, through breaks; as `StreamClient.subscribe` does."""
        name = subscriber_id or uuid.uuid4().hex
        return resumed(
            lambda place: self._read(stream_id, place, name),
            after_sequence=after_sequence,
            patience=patience,
            allow_gap=allow_gap,
        )

    def _texts(self, response: httpx.Response) -> AsyncGenerator[str]:
        """Yield the JSON texts of an answer."""
        raise NotImplementedError

    async def _read(self, stream_id: str, place: Place, subscriber_id: str) -> AsyncGenerator[Frame]:
        position = place.after
        try:
            async with (
                reading(self._http, stream_id, place, accept=self.media_type, subscriber_id=subscriber_id) as response,
                aclosing(self._texts(response)) as texts,
            ):
                async for text in texts:
                    frame = frame_of(text)
                    yield frame
                    if isinstance(frame, StreamGoAway):
                        return
                    if isinstance(frame, StreamGap):
                        position = frame.last_sequence
                    elif isinstance(frame, list):
                        position = frame[-1].sequence
                        if is_last(frame[-1]):
                            return
        except OutOfRange as error:
            if is_at_the_end(error):
                return
            raise
        await check_over(self._http, stream_id, position)


def frame_of(text: str | bytes, *, data: bytes | None = None) -> Frame:
    """Return what a reader got.

    Raises:
        MeshError: it is an error, as the server says.
        StreamInterrupted: it is nothing that a reader gets.
    """
    try:
        frame = frame_from_object(loads(text), data=data).body
    except InvalidRequest as error:
        raise StreamInterrupted(f"The answer is damaged: {error.text}") from error
    if isinstance(frame, MeshError):
        raise frame
    return [frame] if isinstance(frame, StreamEvent) else frame
