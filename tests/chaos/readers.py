"""Readers whose every delivery goes into a history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import grpc

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap
from mediamesh.api.stream.v1.stream_service_pb2 import SubscribeRequest
from mediamesh.api.stream.v1.stream_service_pb2_grpc import StreamServiceStub
from mediamesh.client.channel import MAX_MESSAGE_BYTES, error_of
from mediamesh.client.streams.patience import passes
from mediamesh.wire.errors import MeshError
from tests.chaos.history import History

__all__ = ["Source", "Watch", "bare", "bare_channel", "place_of", "read"]

Source = Callable[[int], AsyncGenerator[StreamEvent | StreamGap]]
"""Reads a stream after a sequence, as the clients of all edges do."""

Watch = Callable[[StreamEvent | StreamGap], Awaitable[None]]
"""Gets what was read once it is noted; a reader that is slow sleeps in it."""

_PAUSE_SECONDS = 0.05


_WINDOW = 65_536


def bare_channel(target: str) -> grpc.aio.Channel:
    """Return a connection of its own that holds little of what is not read: who stops reading is felt behind it."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
    )


def place_of(item: StreamEvent | StreamGap) -> int:
    """Return where a reader is after it got this."""
    return item.last_sequence if isinstance(item, StreamGap) else item.sequence


async def _at_once(_item: StreamEvent | StreamGap) -> None:
    pass


async def read(
    history: History,
    stream_id: str,
    source: Source,
    *,
    client: str,
    edge: str = "grpc",
    after: int = 0,
    watch: Watch = _at_once,
) -> int:
    """Read a stream to its end, or until an error, which goes into the history; return how far it came."""
    position = after
    history.add("subscribed", stream_id, client, edge=edge, sequence=after)
    try:
        async with aclosing(source(after)) as items:
            async for item in items:
                history.delivered(client, edge, stream_id, item)
                position = place_of(item)
                await watch(item)
    except MeshError as error:
        history.add("failed", stream_id, client, edge=edge, note=f"{type(error).__name__}: {error.text}")
    else:
        history.add("completed", stream_id, client, edge=edge)
    return position


def bare(channel: grpc.aio.Channel, stream_id: str, subscriber_id: str = "") -> Source:
    """Read as the client does, without its correction: what a server sends twice or leaves out is yielded so.

    Args:
        channel: From `bare_channel`.
        stream_id: The stream.
        subscriber_id: The reader's own id.
    """
    stub = StreamServiceStub(channel)

    async def source(after: int) -> AsyncGenerator[StreamEvent | StreamGap]:
        position = after
        while True:
            request = SubscribeRequest(
                stream_id=stream_id, after_sequence=position, subscriber_id=subscriber_id, allow_gap=True
            )
            call = stub.Subscribe(request)
            try:
                async for response in call:
                    if response.HasField("gap"):
                        yield response.gap
                        position = response.gap.last_sequence
                    for event in response.events.events:
                        yield event
                        position = event.sequence
                    if response.HasField("go_away"):
                        break
                else:
                    return
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure)
                if not passes(error):
                    raise error from failure
            finally:
                call.cancel()
            await asyncio.sleep(_PAUSE_SECONDS)

    return source
