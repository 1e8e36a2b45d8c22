"""The broker: opens streams, takes the events of producers, hands them to subscribers. It knows no transport."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from mediamesh.api.stream.v1.stream_pb2 import STREAM_STATE_LIVE, Stream, StreamEnd
from mediamesh.api.stream.v1.stream_service_pb2 import ListStreamsResponse, OpenStreamResponse
from mediamesh.streams.hub import Hub, no_stream
from mediamesh.streams.identity import new_id
from mediamesh.streams.lifetime import end_stream, sweep
from mediamesh.streams.limits import limits_of, seconds_of
from mediamesh.streams.log.ports import Appended, Outcome
from mediamesh.streams.places import Places
from mediamesh.streams.publication import Publication
from mediamesh.streams.refusals import refused
from mediamesh.streams.subscription import Subscription, position_of
from mediamesh.streams.tokens import digest_of, is_token, new_token
from mediamesh.streams.watch import watch
from mediamesh.wire.errors import OutOfRange, Overloaded, PermissionDenied, StreamingNotSupported, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.api.stream.v1.stream_service_pb2 import (
        CloseStreamRequest,
        ListStreamsRequest,
        OpenStreamRequest,
        PublishOpen,
        SubscribeRequest,
        WatchStreamsRequest,
        WatchStreamsResponse,
    )
    from mediamesh.streams.log.ports import Stored, StreamStore
    from mediamesh.streams.settings import Settings

__all__ = ["Broker"]

_WORKSPACE = "default"
_PAGE = 50
_SWEEP_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class Broker:
    """Streams over a store that all replicas share; made by `running`."""

    def __init__(self, store: StreamStore, settings: Settings, *, replica: str) -> None:
        self._store = store
        self._settings = settings
        self._hub = Hub(store, replica=replica)
        self._places = Places(store, seconds=settings.resume_seconds)
        self._publications: set[Publication] = set()
        self._subscribers = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, store: StreamStore, settings: Settings, *, replica: str) -> AsyncGenerator[Self]:
        """Yield a broker that works until the block ends.

        Args:
            store: Where streams are kept.
            settings: How they are bounded.
            replica: The name under which this replica writes to the store.
        """
        broker = cls(store, settings, replica=replica)
        async with asyncio.TaskGroup() as tasks:
            chores = [
                tasks.create_task(broker._hub.poll()),
                tasks.create_task(broker._places.keep()),
                tasks.create_task(sweep(store, broker._hub, seconds=_SWEEP_SECONDS)),
            ]
            try:
                yield broker
            finally:
                for chore in chores:
                    chore.cancel()

    async def check(self) -> None:
        """Raise Unavailable when the store is not there."""
        await self._store.check()

    async def open(self, request: OpenStreamRequest) -> OpenStreamResponse:
        """Open a stream.

        Raises:
            InvalidRequest: more is asked for than a stream may have.
            Overloaded: as many streams live as may.
            StreamingNotSupported: streams are switched off here.
            Unavailable: the server is going away, or the store is.
        """
        if not self._settings.enable_streaming:
            raise StreamingNotSupported("Streams are off here (ENABLE_STREAMING).")
        if self._hub.leaving:
            raise Unavailable("The server is going away; open the stream on another.")
        token = new_token()
        stream = Stream(
            stream_id=new_id(),
            workspace_id=request.workspace_id or _WORKSPACE,
            execution_id=request.execution_id,
            node_id=request.node_id,
            pin_name=request.pin_name,
            mime_type=request.mime_type,
            limits=limits_of(request.limits, self._settings),
            state=STREAM_STATE_LIVE,
        )
        stream.create_time.GetCurrentTime()
        await self._store.create(stream, digest_of(token))
        return OpenStreamResponse(
            stream_id=stream.stream_id,
            ws_url=f"{self._settings.public_url.rstrip('/')}/api/v1/streams/{stream.stream_id}/ws",
            publish_token=token,
            stream=stream,
        )

    @asynccontextmanager
    async def publish(self, opening: PublishOpen) -> AsyncGenerator[Publication]:
        """Yield the publication of a producer, for as long as it is connected.

        Raises:
            NotFound: there is no such stream.
            PermissionDenied: the token is not the stream's.
            FailedPrecondition: a later producer has taken over, or the stream has ended.
            Unavailable: the server is going away, or the store is.
        """
        if self._hub.leaving:
            raise Unavailable("The server is going away; publish to another.")
        stored = await self._hub.load(opening.stream_id)
        if not is_token(opening.publish_token, stored.token_digest):
            raise PermissionDenied(
                f"The publish token is not that of the stream {opening.stream_id}.", stream_id=opening.stream_id
            )
        producer_id = opening.producer_id or new_id()
        taken = await self._store.take(opening.stream_id, producer_id, opening.epoch)
        if taken.outcome is Outcome.ENDED and _is_back(opening, stored):
            # It may not have heard that its last events were stored; it sends them again and hears it.
            stored = await self._hub.load(opening.stream_id)
            # An end that is not its own took the place of an event that it may have sent: that one was never stored.
            newest = stored.stream.last_sequence - stored.closed
            taken = Appended(outcome=Outcome.STORED, newest=newest, epoch=stored.stream.epoch)
        if taken.outcome is not Outcome.STORED:
            refused(opening.stream_id, 0, opening.epoch, taken)
        publication = Publication(
            stored.stream,
            taken,
            producer_id,
            store=self._store,
            hub=self._hub,
            places=self._places,
            settings=self._settings,
        )
        self._publications.add(publication)
        try:
            async with publication:
                if self._hub.leaving:
                    publication.leave()  # it came while those who were here were told
                yield publication
        finally:
            self._publications.discard(publication)

    @asynccontextmanager
    async def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[Subscription]:
        """Yield the subscription of a reader, for as long as it is connected.

        Raises:
            InvalidRequest: the resume token is none.
            NotFound: there is no such stream, or its events are no longer kept.
            OutOfRange: the position is not there yet, or no longer; names the newest or the first sequence.
            Overloaded: as many subscribers are here as may be.
            Unavailable: the server is going away, or the store is.
        """
        if self._hub.leaving:
            raise Unavailable("The server is going away; subscribe to another.")
        if self._subscribers >= self._settings.max_subscribers:
            raise Overloaded.retry(
                f"This server has {self._subscribers} subscribers, as many as it may.",
                _RETRY_SECONDS,
                stream_id=request.stream_id,
                limit=self._settings.max_subscribers,
            )
        self._subscribers += 1
        try:
            position = position_of(request)
            stored = await self._hub.load(request.stream_id)
            if not stored.readable:
                raise no_stream(request.stream_id)
            _check_position(stored.stream, position, allow_gap=request.allow_gap)
            interval = request.heartbeat_interval if request.HasField("heartbeat_interval") else None
            async with self._hub.tail(stored) as tail:
                place = await self._places.enter(stored.stream, request.subscriber_id or new_id(), position)
                async with Subscription(
                    stored.stream,
                    position,
                    tail,
                    place,
                    interval=seconds_of(interval or stored.stream.limits.heartbeat_interval),
                    store=self._store,
                    hub=self._hub,
                    places=self._places,
                ) as subscription:
                    yield subscription
        finally:
            self._subscribers -= 1

    def watch(self, request: WatchStreamsRequest) -> AsyncGenerator[WatchStreamsResponse]:
        """Yield which streams live, come and go."""
        return watch(
            self._store,
            self._hub,
            workspace_id=request.workspace_id or _WORKSPACE,
            execution_id=request.execution_id,
            resume_token=request.resume_token,
            heartbeat_seconds=self._settings.heartbeat_seconds,
        )

    async def get(self, stream_id: str) -> Stream:
        """Return a stream as it stands.

        Raises:
            NotFound: there is no such stream.
        """
        return (await self._hub.load(stream_id)).stream

    async def list(self, request: ListStreamsRequest) -> ListStreamsResponse:
        """Return a page of the streams of a workspace, newest first."""
        limit = request.page_size or _PAGE
        found = await self._store.page(
            request.workspace_id or _WORKSPACE,
            execution_id=request.execution_id,
            live_only=request.live_only,
            before=request.page_token,
            limit=limit,
        )
        streams = [stored.stream for stored in found]
        token = streams[-1].stream_id if len(streams) == limit else ""
        return ListStreamsResponse(streams=streams, next_page_token=token)

    async def close(self, request: CloseStreamRequest) -> Stream:
        """End a stream in place of its producer; one that has ended stays as it is.

        Raises:
            NotFound: there is no such stream.
        """
        end = StreamEnd(reason=request.reason or "closed")
        if request.HasField("error"):
            end.error.CopyFrom(request.error)
        return await end_stream(self._store, self._hub, request.stream_id, end)

    def leave(self) -> None:
        """Tell every subscriber, producer and watcher to go on elsewhere."""
        self._hub.leave()
        for publication in self._publications:
            publication.leave()


def _is_back(opening: PublishOpen, stored: Stored) -> bool:
    return (
        bool(opening.producer_id)
        and opening.producer_id == stored.producer_id
        and opening.epoch
        in {
            0,
            stored.stream.epoch,
        }
    )


def _check_position(stream: Stream, position: int, *, allow_gap: bool) -> None:
    newest = stream.last_sequence
    if position > newest:
        raise OutOfRange(
            f"There is no event {position} of the stream {stream.stream_id} yet; the newest is {newest}.",
            stream_id=stream.stream_id,
            sequence=position,
            newest=newest,
        )
    first = stream.first_sequence or newest + 1
    if 0 < position < first - 1 and not allow_gap:
        raise OutOfRange(
            f"Event {position + 1} of the stream {stream.stream_id} is no longer kept; the first one is {first}.",
            stream_id=stream.stream_id,
            sequence=position,
            first_sequence=first,
        )
