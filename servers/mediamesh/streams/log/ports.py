"""What the broker needs of a store: one log of events for each stream, shared by all replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd

__all__ = ["Append", "Appended", "Entry", "News", "Outcome", "Page", "Place", "Polled", "Stored", "StreamStore"]


class Entry(NamedTuple):
    """One event as it is kept: its position and its bytes, a serialised ``StreamEvent``."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stream as it stands.

    Attributes:
        stream: The stream; ``first_sequence``, ``last_sequence``, ``epoch``, ``state`` and ``end`` are up to date.
        token_digest: SHA-256 of the publish token, hexadecimal.
        producer_id: Who holds the epoch; empty before the first producer.
        readable: Whether its events are still kept; false some time after its end.
        closed: Whether its last event is not its producer's: somebody else ended it.
    """

    stream: Stream
    token_digest: str
    producer_id: str
    readable: bool
    closed: bool


class Outcome(Enum):
    """What became of an append."""

    STORED = "stored"
    """All events are in the log, or were before."""
    FULL = "full"
    """The buffer is full and its policy is `block`: the first ``accepted`` events are in the log, the rest are not."""
    FENCED = "fenced"
    """A producer with a higher epoch has taken over; nothing was appended."""
    ENDED = "ended"
    """The stream has ended; nothing was appended."""
    AHEAD = "ahead"
    """The first sequence is not the next one; nothing was appended."""
    GONE = "gone"
    """There is no such stream."""


# These two are made for every event, or nearly so: to freeze one takes longer than all else about it.
@dataclass(slots=True, kw_only=True)
class Append:
    """Events to append, if they are the next ones.

    Attributes:
        stream_id: The stream.
        epoch: Epoch of the producer; 0 for the broker itself, which ends streams whoever produces.
        entries: The events with consecutive sequences. Those at or before the newest are dropped as repeated.
        end: How the stream ends with the last of them; it is appended however full the buffer is.
        readers: Positions of subscribers on this replica, by subscriber id, which the store may not know yet.
    """

    stream_id: str
    epoch: int
    entries: Sequence[Entry]
    end: StreamEnd | None = None
    readers: Mapping[str, int] | None = None


@dataclass(slots=True, kw_only=True)
class Appended:
    """What became of it.

    Attributes:
        outcome: See there.
        newest: Sequence of the newest event, dropped ones counted.
        oldest: Sequence of the oldest event kept; 0 when none is.
        accepted: How many of the events are dealt with: stored, repeated, or dropped.
        dropped: First and last sequence that `drop_newest` dropped; None when nothing was.
        room_items: Events that the buffer takes before its policy acts.
        room_bytes: Bytes likewise.
        epoch: Epoch that holds.
    """

    outcome: Outcome
    newest: int = 0
    oldest: int = 0
    accepted: int = 0
    dropped: tuple[int, int] | None = None
    room_items: int = 0
    room_bytes: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events after a position.

    Attributes:
        entries: In order; there may be holes, and the first may be later than the next.
        oldest: Sequence of the oldest event kept; 0 when none is.
        newest: Sequence of the newest event, dropped ones counted.
        ended: Whether the newest is the last.
    """

    entries: Sequence[Entry]
    oldest: int
    newest: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a subscriber has read; it holds back what the policies `block` and `drop_newest` may drop.

    Attributes:
        stream_id: The stream.
        subscriber_id: Who reads.
        position: Sequence of the last event that it took.
        seconds: How long the place holds when nothing more is heard; 0 gives it up.
    """

    stream_id: str
    subscriber_id: str
    position: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A stream became available, changed its producer, or ended.

    Attributes:
        position: Place of this among all news; an opaque token for `poll` and `news`.
        kind: ``opened``, ``taken`` (a producer took the epoch) or ``ended``.
        stream: The stream as it was then.
        replica: Which replica wrote it.
    """

    position: str
    kind: str
    stream: Stream
    replica: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What a poll found.

    Attributes:
        entries: New events, by stream.
        news: New news, in order.
    """

    entries: Mapping[str, Sequence[Entry]]
    news: Sequence[News]


class StreamStore(Protocol):
    """Logs of streams, shared by all replicas. Every method raises ``Unavailable`` when the store cannot be reached."""

    async def check(self) -> None:
        """Raise ``Unavailable`` when the store is not there."""

    async def create(self, stream: Stream, token_digest: str) -> None:
        """Add a stream with its limits filled in, and tell the news.

        Its first reader's place is kept from now on, at 0, for as long as a subscriber that left may come back.

        Raises:
            Overloaded: as many streams live as may.
        """

    async def load(self, stream_ids: Sequence[str]) -> list[Stored]:
        """Return the streams that there are, in the order of the ids; those that there are not are left out."""
        ...

    async def page(
        self, workspace_id: str, *, execution_id: str = "", live_only: bool = False, before: str = "", limit: int = 50
    ) -> list[Stored]:
        """Return streams of a workspace, newest first, that were opened before the stream with the id ``before``."""
        ...

    async def take(self, stream_id: str, producer_id: str, epoch: int) -> Appended:
        """Give a producer the right to append.

        An epoch of 0 takes the next one. One above that which holds takes over and tells the news; the one that holds
        is right for the producer that has it already. Outcomes: STORED, FENCED, ENDED, GONE.
        """
        ...

    async def append(self, append: Append) -> Appended:
        """Append events, at once and all that fit; applies the bounds and the policy of the stream.

        The end of a stream is told in the news.
        """
        ...

    def begin(self, append: Append, told: Callable[[Appended | Exception], None]) -> None:
        """Append events that do not end the stream, and say what became of it, or the ``Unavailable``, by a call.

        It is called once, later, and must not raise. This is `append` without a task that waits: there are thousands a
        second.
        """

    async def read(self, stream_id: str, after: int, *, items: int, size: int) -> Page | None:
        """Return events after a position, at most so many and of about so many bytes; None when the log is gone."""
        ...

    async def poll(self, positions: Mapping[str, int]) -> Polled:
        """Wait a second or two for events after the positions of streams, and for news since the last call.

        One call at a time. It returns early, with nothing perhaps, after `wake`.
        """
        ...

    async def wake(self) -> None:
        """Make a running `poll` return, as there are more streams to poll."""

    async def news(self, after: str, limit: int) -> list[News]:
        """Return news after a position; all that are kept for an empty one.

        Raises:
            OutOfRange: the position is no longer kept, or is none.
        """
        ...

    async def newest_news(self) -> str:
        """Return the position of the newest news."""
        ...

    async def place(self, places: Iterable[Place]) -> None:
        """Note how far subscribers have read."""

    async def overdue(self, limit: int) -> list[str]:
        """Return ids of streams that live longer than they may."""
        ...

    async def live(self) -> int:
        """Return how many streams live."""
        ...
