"""One producer at work: its events checked, spelled, appended in groups, and acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_service_pb2 import PublishOpened, PublishWindow
from mediamesh.streams.acks import Acks
from mediamesh.streams.committer import Committer, Pending
from mediamesh.streams.events import Speller
from mediamesh.streams.limits import check_event
from mediamesh.streams.metrics import COUNTS
from mediamesh.streams.rate import TokenBucket
from mediamesh.wire.errors import FailedPrecondition, OutOfRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.api.stream.v1.stream_pb2 import Stream
    from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent, PublishResponse
    from mediamesh.streams.hub import Hub
    from mediamesh.streams.log.ports import Appended, StreamStore
    from mediamesh.streams.places import Places
    from mediamesh.streams.settings import Settings

__all__ = ["Publication"]

_ENDS = (stream_pb2.STREAM_EVENT_TYPE_STREAM_END, stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR)


class Publication:
    """What a producer does with a stream while it is connected; an async iterator of what it is to hear.

    Attributes:
        opened: The producer's id and epoch, and where to go on.
    """

    def __init__(
        self,
        stream: Stream,
        taken: Appended,
        producer_id: str,
        *,
        store: StreamStore,
        hub: Hub,
        places: Places,
        settings: Settings,
    ) -> None:
        self.opened = PublishOpened(
            producer_id=producer_id,
            epoch=taken.epoch,
            last_sequence=taken.newest,
            window=PublishWindow(items=taken.room_items, bytes=taken.room_bytes),
        )
        self._stream = stream
        self._stream_id = stream.stream_id
        self._hub = hub
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._speller = Speller(stream)
        self._acks = Acks(taken.newest, settings.ack_seconds)
        self._bucket = TokenBucket(stream.limits.max_events_per_second, self._loop.time())
        self._next = taken.newest + 1
        self._last = stream.last_sequence if stream.HasField("end") else None
        self._committer = Committer(stream, taken, self._acks, store=store, hub=hub, places=places, settings=settings)

    async def __aenter__(self) -> Self:
        COUNTS.publishers += 1
        self._hub.claim(self._stream_id, self.opened.last_sequence)
        self._committing = asyncio.create_task(self._commit())
        return self

    async def __aexit__(self, *_error: object) -> None:
        COUNTS.publishers -= 1
        self._committer.stop()
        self._committing.cancel()
        await asyncio.wait([self._committing])
        await self._hub.disown(self._stream_id)

    async def put(self, events: Sequence[PublishEvent]) -> None:
        """Take the next events of the producer; waits while too many are under way, or it is too fast.

        While all are to go elsewhere none is taken: without an acknowledgement the producer sends it again there.

        Raises:
            InvalidRequest: an event is too large, or its chunk not valid.
            OutOfRange: its sequence is not the next one.
            FailedPrecondition: the stream has ended.
        """
        for event in events:
            # What comes after one that was not taken is not taken either: out of turn only because of that.
            if self._hub.leaving:
                return
            if not self._is_new(event):
                self._acks.repeat()
                continue
            if wait := self._bucket.take(self._loop.time()):
                await asyncio.sleep(wait)
            await self._committer.room()
            if self._hub.leaving:
                return
            self._accept(event)

    def finish(self) -> None:
        """Note that no further events come: the iterator ends when all are stored and acknowledged."""
        self._committer.finish()

    def leave(self) -> None:
        """Store and acknowledge what was taken, then tell the producer to go on elsewhere."""
        self._committer.finish()

    def fail(self, error: Exception) -> None:
        """End with an error, after the acknowledgement of what was stored."""
        self._committer.finish(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PublishResponse:
        return await self._acks.next()

    def _is_new(self, event: PublishEvent) -> bool:
        sequence = event.sequence
        if self._last is not None and (
            sequence > self._last or (sequence == self._last and event.event_type not in _ENDS)
        ):
            raise FailedPrecondition(
                f"The stream {self._stream_id} ended with event {self._last}; it takes no event {sequence} any more.",
                stream_id=self._stream_id,
                sequence=sequence,
                last_sequence=self._last,
            )
        if sequence < self._next:
            return False
        if sequence > self._next:
            raise OutOfRange(
                f"Event {sequence} of the stream {self._stream_id} comes too early: the next one is {self._next}.",
                stream_id=self._stream_id,
                sequence=sequence,
                next_sequence=self._next,
            )
        return True

    def _accept(self, event: PublishEvent) -> None:
        payload = event.payload if event.HasField("payload") else None
        check_event(self._stream_id, event, self._settings.max_event_bytes)
        data = self._speller.spell(event.sequence, event.event_type, payload)
        end = None
        if event.event_type in _ENDS:
            end = _end_of(event)
            self._last = event.sequence
        self._next = event.sequence + 1
        self._committer.add(Pending(event.sequence, data, end, self._loop.time()))

    async def _commit(self) -> None:
        try:
            await self._committer.run()
        except Exception as error:  # noqa: BLE001 - the call ends with it, in the task that answers
            self._acks.close(error)
        else:
            if self._hub.leaving:
                self._acks.go_away(
                    stream_pb2.StreamGoAway(
                        reason="The server is going away; publish on to another.",
                        resume_token=str(self._acks.acknowledged),
                    )
                )
            self._acks.close()
        finally:
            self._committer.stop()


def _end_of(event: PublishEvent) -> stream_pb2.StreamEnd:
    reason = event.payload.metadata.reason
    if event.event_type == stream_pb2.STREAM_EVENT_TYPE_STREAM_END:
        return stream_pb2.StreamEnd(reason=reason or "stop")
    return stream_pb2.StreamEnd(reason=reason or "error", error=event.payload.error)
