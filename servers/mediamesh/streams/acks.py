"""What a producer is to hear, gathered: acknowledgements not too often, notices, the end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import PolicyNotice, PublishAck, PublishResponse, PublishWindow
from mediamesh.streams.metrics import COUNTS

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import StreamGoAway

__all__ = ["Acks"]

_MOST_UNTOLD = 256
_MOST_UNTOLD_BYTES = 512 * 1024  # a producer of media would wait with its window full
_KEPT_NOTICES = 64
_SHARE_SECONDS = 0.002
_LONGEST_SECONDS = 1.0


class Acks:
    """The answers to one producer.

    An acknowledgement goes out at once unless the last one did a moment ago; then it waits for more to join it.

    Args:
        acknowledged: Sequence of the newest event that is stored already.
        seconds: Least time between two acknowledgements, of one producer alone; the more there are the longer it is.
    """

    def __init__(self, acknowledged: int, seconds: float) -> None:
        self.acknowledged = acknowledged
        self._told = acknowledged
        self._untold_bytes = 0
        self._again = False
        self._window = PublishWindow()
        self._notices: deque[PublishResponse] = deque()
        self._held: PublishResponse | None = None
        self._is_held_told = False
        self._seconds = seconds
        self._last = float("-inf")
        self._closed = False
        self._failure: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._rests = False

    def acknowledge(self, sequence: int, window: PublishWindow, size: int) -> None:
        """Note that all events up to this one, so many bytes more than at the last call, are dealt with."""
        self.acknowledged = sequence
        self._window = window
        self._untold_bytes += size
        # While the moment after an acknowledgement lasts there is nothing to do: its timer wakes who waits.
        if not self._rests or self._is_much():
            self._wake()

    def repeat(self) -> None:
        """Tell the newest acknowledgement again: the producer sent an event that is stored already."""
        self._again = True
        self._wake()

    def note(self, notice: PolicyNotice) -> None:
        """Tell what the policy does; of notices that nobody takes the oldest go."""
        if len(self._notices) >= _KEPT_NOTICES:
            self._notices.popleft()
        self._notices.append(PublishResponse(notice=notice))
        self._wake()

    def hold(self, notice: PolicyNotice) -> None:
        """Tell that the producer is held until `release`: now, and again after each acknowledgement, which ends it."""
        self._held = PublishResponse(notice=notice)
        self._is_held_told = False
        self._wake()

    def release(self) -> None:
        """Tell that the producer is held no more, by an acknowledgement."""
        self._held = None
        self.repeat()

    def go_away(self, go_away: StreamGoAway) -> None:
        """Say that the server goes, after everything that is acknowledged, and end."""
        self._notices.append(PublishResponse(ack=self._ack()))
        self._notices.append(PublishResponse(go_away=go_away))
        self.close()

    def close(self, failure: Exception | None = None) -> None:
        """End, with an error perhaps, when everything is told."""
        if not self._closed:
            self._closed, self._failure = True, failure
            self._held = None
            self._wake()

    async def next(self) -> PublishResponse:
        """Return what is to be told next.

        Raises:
            StopAsyncIteration: nothing more is to be told.
            Exception: what ended the publication.
        """
        while True:
            if self._notices:
                return self._notices.popleft()
            untold = self._held if not self._is_held_told else None
            if self._has_news():
                wait = self._last + self._rest() - self._loop.time()
                if wait <= 0 or self._closed or self._is_much() or untold:
                    return PublishResponse(ack=self._ack())
                await self._until_changed(wait)
            elif untold:
                self._is_held_told = True
                return untold
            elif self._closed:
                raise self._failure or StopAsyncIteration
            else:
                await self._until_changed(None)

    def _rest(self) -> float:
        # To write an acknowledgement takes as long as to write an event: all producers together get some 500 a second.
        # Who wants them without any wait gets them so.
        share = min(COUNTS.publishers * _SHARE_SECONDS, _LONGEST_SECONDS)
        return max(self._seconds, share) if self._seconds else 0.0

    def _has_news(self) -> bool:
        return self._again or self.acknowledged > self._told

    def _is_much(self) -> bool:
        return self.acknowledged - self._told >= _MOST_UNTOLD or self._untold_bytes >= _MOST_UNTOLD_BYTES

    def _ack(self) -> PublishAck:
        self._again, self._told, self._last = False, self.acknowledged, self._loop.time()
        self._untold_bytes = 0
        self._is_held_told = False
        return PublishAck(sequence=self.acknowledged, window=self._window)

    async def _until_changed(self, seconds: float | None) -> None:
        # By hand: an event and a timeout for each acknowledgement cost more than all else about it.
        waiter = self._waiter = self._loop.create_future()
        self._rests = seconds is not None
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await waiter
        finally:
            self._waiter, self._rests = None, False
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
