"""A producer's conversation with its stream, through as many calls as it takes."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import (
    PublishOpen,
    PublishOpened,
    PublishRequest,
    PublishResponse,
    PublishWindow,
)
from mediamesh.client.streams.link import Call, Link
from mediamesh.client.streams.patience import Patience, passes
from mediamesh.wire.errors import FailedPrecondition, MeshError, StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamState
    from mediamesh.client.streams.outbox import Outbox

__all__ = ["Conversation"]

# A call that lasted so long, or had something stored, was no failure to open one.
_STEADY_SECONDS = 1.0


class Conversation:
    """Opens calls, hands over what an outbox holds, and settles what is stored.

    Args:
        call: Makes a call of Publish.
        look: Returns the stream as it stands.
        opening: Who publishes to what; producer and epoch are filled in when the stream has answered.
        outbox: The events.
        patience: How many seconds without a word from any server to bear.
        silence: Seconds without an answer, while one is due, after which a connection counts as broken.

    Attributes:
        window: How much the buffer of the stream takes before its policy acts.
        is_blocked: Whether the policy holds the producer until a subscriber has caught up.
        dropped: How many events the policy has dropped.
        end: How the stream ends with the last event of the outbox; None while it goes on.
    """

    def __init__(
        self,
        *,
        call: Call,
        look: Callable[[], Awaitable[Stream]],
        opening: PublishOpen,
        outbox: Outbox,
        patience: float,
        silence: float,
    ) -> None:
        self._call = call
        self._look = look
        self._opening = opening
        self._outbox = outbox
        self._patience = Patience(patience)
        self._silence = silence
        self._link: Link | None = None
        self._is_leaving = False
        self._is_open = False
        self.window = PublishWindow()
        self.is_blocked = False
        self.dropped = 0
        self.end: StreamState.ValueType | None = None

    async def run(self) -> None:
        """Talk until the producer leaves; what makes that impossible goes to the outbox, for those who wait there."""
        try:
            while not self._is_leaving:
                await self._talk()
        except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
            self._outbox.fail(error)

    async def opened(self) -> None:
        """Wait until the stream has taken the producer.

        Raises:
            MeshError: it has not.
        """
        await self._outbox.until(lambda: self._is_open)

    def leave(self) -> None:
        """Send nothing more, and end when the server has ended the call."""
        self._is_leaving = True
        if self._link is not None:
            self._link.close()

    async def _talk(self) -> None:
        """Make one call, and bear its failure if it may pass."""
        self._link = link = Link(self._outbox, self._opening, silence=self._silence)
        begin, before = monotonic(), self._outbox.acknowledged
        failure: MeshError = StreamInterrupted("The connection ended before the stream.")
        try:
            await link.run(self._call, self._take)
        except MeshError as error:
            failure = error if passes(error) else await self._judged(error)
        if self.end is not None and self._outbox.is_empty:
            self._is_leaving = True
        self.is_blocked = False
        was_steady = link.is_open and (self._outbox.acknowledged > before or monotonic() - begin > _STEADY_SECONDS)
        if was_steady:
            self._patience.heard()
        if not self._is_leaving and not (was_steady and link.is_dismissed):
            await self._patience.bear(failure)

    def _take(self, response: PublishResponse) -> None:
        """Act on an answer of the server."""
        match response.WhichOneof("frame"):
            case "opened":
                self._open(response.opened)
            case "ack":
                self.window, self.is_blocked = response.ack.window, False
                self._outbox.settle(response.ack.sequence)
            case "notice":
                self.is_blocked = response.notice.blocked
                if response.notice.HasField("dropped"):
                    lost = response.notice.dropped
                    self.dropped += lost.last_sequence - lost.first_sequence + 1

    def _open(self, opened: PublishOpened) -> None:
        self.window = opened.window
        if self._is_open:
            self._outbox.reopen(opened.last_sequence)
            return
        self._opening.producer_id, self._opening.epoch = opened.producer_id, opened.epoch
        self._is_open = True
        self._outbox.begin(opened.last_sequence)

    async def _judged(self, refusal: MeshError) -> MeshError:
        """Return a failure that may pass, or none that matters: the end of the stream is stored, which nobody told us.

        Raises:
            MeshError: the refusal, when it is one.
        """
        if self.end is None or not self._is_open or not isinstance(refusal, FailedPrecondition):
            raise refusal
        if self._outbox.is_empty:
            return refusal
        try:
            stream = await self._look()
        except MeshError as error:
            if passes(error):
                return error
            raise refusal from error
        is_ours = stream.epoch == self._opening.epoch and stream.last_sequence == self._outbox.newest
        # A stream that somebody closed has failed too: with another error, in the place of ours.
        last = PublishRequest.FromString(self._outbox.frame(self._outbox.newest) or b"").event
        if not is_ours or stream.state != self.end or stream.end.error != last.payload.error:
            raise refusal
        self._outbox.settle(self._outbox.newest)
        return refusal
