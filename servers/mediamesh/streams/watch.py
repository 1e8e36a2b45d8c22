"""Which streams come and go: first those that live, then the news."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_pb2 import StreamGoAway, StreamHeartbeat
from mediamesh.api.stream.v1.stream_service_pb2 import StreamAvailable, StreamComplete, WatchStreamsResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.api.stream.v1.stream_pb2 import Stream
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import News, StreamStore

__all__ = ["watch"]

_PAGE = 200


async def watch(
    store: StreamStore, hub: Hub, *, workspace_id: str, execution_id: str, resume_token: str, heartbeat_seconds: float
) -> AsyncGenerator[WatchStreamsResponse]:
    """Yield a frame for each stream that lives, then for each that comes or goes; never ends but by `go_away`.

    A watch that breaks off while it tells what lives begins anew, as these frames carry no token.

    Raises:
        OutOfRange: the news after the token are no longer kept, or the token is none.
    """
    position = resume_token
    if not position:
        position = await store.newest_news()
        async for stream in _living(store, workspace_id, execution_id):
            yield WatchStreamsResponse(stream_available=StreamAvailable(stream=stream))
        yield WatchStreamsResponse(resume_token=position, heartbeat=StreamHeartbeat())
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    while True:
        version = hub.bulletin.version
        found = await hub.bulletin.after(position)
        for news in found:
            position = news.position
            frame = _frame(news)
            if frame is not None and _concerns(news.stream, workspace_id, execution_id):
                spoke = loop.time()
                yield frame
        if hub.leaving:
            reason = "The server is going away; watch on from another."
            yield WatchStreamsResponse(
                resume_token=position, go_away=StreamGoAway(reason=reason, resume_token=position)
            )
            return
        left = spoke + heartbeat_seconds - loop.time()
        if left <= 0:
            spoke = loop.time()
            yield WatchStreamsResponse(resume_token=position, heartbeat=StreamHeartbeat())
        elif not found:
            await hub.bulletin.wait(version, left)


async def _living(store: StreamStore, workspace_id: str, execution_id: str) -> AsyncGenerator[Stream]:
    before = ""
    while found := await store.page(
        workspace_id, execution_id=execution_id, live_only=True, before=before, limit=_PAGE
    ):
        for stored in found:
            yield stored.stream
        before = found[-1].stream.stream_id


def _frame(news: News) -> WatchStreamsResponse | None:
    if news.kind == "opened":
        return WatchStreamsResponse(resume_token=news.position, stream_available=StreamAvailable(stream=news.stream))
    if news.kind == "ended":
        return WatchStreamsResponse(resume_token=news.position, stream_complete=StreamComplete(stream=news.stream))
    return None


def _concerns(stream: Stream, workspace_id: str, execution_id: str) -> bool:
    return stream.workspace_id == workspace_id and execution_id in {"", stream.execution_id}
