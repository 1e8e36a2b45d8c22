"""One call of a producer, from its opening frame to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import PublishOpen, PublishRequest, PublishResponse
from mediamesh.wire.errors import StreamInterrupted

if TYPE_CHECKING:
    from mediamesh.client.streams.outbox import Outbox

__all__ = ["Call", "Link"]

Call = Callable[[AsyncIterator[bytes]], AsyncGenerator[PublishResponse]]
"""Makes one call of Publish, of serialised requests, over some transport; closing what it returns ends it."""


class Link:
    """Sends what an outbox holds, and hears what the server answers.

    Args:
        outbox: Where the events come from.
        opening: The first frame.
        silence: Seconds without an answer, while one is due, after which the connection counts as broken.

    Attributes:
        is_open: Whether the server took the producer.
        is_dismissed: Whether the server said that it goes away.
    """

    def __init__(self, outbox: Outbox, opening: PublishOpen, *, silence: float) -> None:
        self._outbox = outbox
        self._opening = opening
        self._silence = silence
        self._deadline = asyncio.timeout(silence)
        self._may_send = asyncio.Event()
        self._is_closed = False
        self._is_held = False
        self._next = 0
        self.is_open = False
        self.is_dismissed = False

    async def run(self, call: Call, take: Callable[[PublishResponse], None]) -> None:
        """Make the call and hand on every answer, until the server ends it or says that it goes away.

        Raises:
            StreamInterrupted: the server was silent for too long.
            MeshError: what ended the call.
        """
        try:
            async with self._deadline, aclosing(call(self._requests())) as responses:
                async for response in responses:
                    take(response)
                    if response.HasField("go_away"):
                        self.is_dismissed = True
                        return
                    if response.HasField("opened"):
                        self._go_on(response.opened.last_sequence)
                    self._is_held = response.notice.blocked
                    self._expect()
        except TimeoutError:
            if not self._deadline.expired():
                raise
            raise StreamInterrupted(f"The server said nothing for {self._silence:g} s.") from None
        finally:
            # So that the requests end: grpc.aio leaves those of a call that the server ended waiting for ever.
            self.close()

    def close(self) -> None:
        """Send nothing more; the server ends the call then."""
        self._is_closed = True
        self._may_send.set()
        self._outbox.added.set()

    def _go_on(self, last_sequence: int) -> None:
        self.is_open = True
        self._next = last_sequence + 1
        self._may_send.set()

    async def _requests(self) -> AsyncIterator[bytes]:
        yield PublishRequest(open=self._opening).SerializeToString()
        await self._may_send.wait()
        while not self._is_closed:
            # What another call had under way may have been stored meanwhile.
            self._next = max(self._next, self._outbox.acknowledged + 1)
            frame = self._outbox.frame(self._next)
            if frame is None:
                self._outbox.added.clear()
                await self._outbox.added.wait()
                continue
            self._next += 1
            if self._deadline.when() is None:
                self._expect()
            yield frame

    def _expect(self) -> None:
        """Answers are due while something is not acknowledged, unless the policy of the stream holds the producer."""
        if not self._deadline.expired():
            is_due = not self._is_held and not self._outbox.is_empty
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._silence if is_due else None)
