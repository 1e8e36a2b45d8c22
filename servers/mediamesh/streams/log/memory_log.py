"""One stream in memory. What it does on an append, in Python, is what the scripts of Valkey do in Lua."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy, Stream, StreamEnd
from mediamesh.streams.log.ports import Append, Appended, Entry, Outcome, Page, Place, Stored
from mediamesh.streams.log.snapshot import Standing, stored_of

__all__ = ["MemoryLog"]

# Policies that ask how far all have read; what is not set means `block`.
_WAITING = (
    OverflowPolicy.OVERFLOW_POLICY_UNSPECIFIED,
    OverflowPolicy.OVERFLOW_POLICY_BLOCK,
    OverflowPolicy.OVERFLOW_POLICY_DROP_NEWEST,
)


@dataclass(slots=True)
class _Progress:
    """How far an append has come."""

    accepted: int = 0
    first_dropped: int = 0
    last_dropped: int = 0


@dataclass(slots=True)
class MemoryLog:
    """A stream, its events, and how far it has been read.

    Attributes:
        stream: The stream as it was opened.
        token_digest: Digest of its publish token.
        deadline: When it has lived long enough; this and all times here are of ``time.time``.
        resume_seconds: How long the place of somebody who may still come is kept.
        standing: What changes.
        entries: The events that are kept, by sequence.
        size: Their bytes.
        safe: All counted readers have taken the events up to this one, as far as is known.
        places: Position of each reader, and when it is forgotten; the empty id is the first reader, before it comes.
        buffer_gone: When the events go; for a stream that ended.
        gone: When all goes.
    """

    stream: Stream
    token_digest: str
    deadline: float
    resume_seconds: float
    standing: Standing = field(default_factory=Standing)
    entries: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    size: int = 0
    safe: int = 0
    places: dict[str, tuple[int, float]] = field(default_factory=dict)
    buffer_gone: float = math.inf
    gone: float = math.inf

    def __post_init__(self) -> None:
        self.places[""] = (0, time.time() + self.resume_seconds)

    def stored(self) -> Stored:
        """Return the stream as it stands."""
        self._forget()
        return stored_of(self.stream, self.token_digest, self.standing, oldest=self.oldest, readable=self.readable)

    @property
    def oldest(self) -> int:
        """Sequence of the oldest event that is kept; 0 when none is."""
        return next(iter(self.entries), 0)

    @property
    def readable(self) -> bool:
        """Whether the events are still kept."""
        return bool(self.entries) or self.standing.newest == 0

    def take(self, producer_id: str, epoch: int) -> tuple[Appended, bool]:
        """See `StreamStore.take`; tells besides whether the producer changed."""
        standing = self.standing
        if standing.ended:
            return self._answer(Outcome.ENDED), False
        epoch = epoch or standing.epoch + 1
        held = epoch == standing.epoch and standing.producer_id in {producer_id, ""}
        if epoch < standing.epoch or (epoch == standing.epoch and not held):
            return self._answer(Outcome.FENCED), False
        changed = epoch > standing.epoch
        standing.epoch, standing.producer_id = epoch, producer_id
        return self._answer(Outcome.STORED), changed

    def append(self, append: Append) -> Appended:
        """See `StreamStore.append`."""
        self._forget()
        refused = self._refused(append)
        if refused is not None:
            return refused
        standing = self.standing
        if append.epoch > standing.epoch:
            standing.epoch, standing.producer_id = append.epoch, ""
        done = _Progress()
        for entry in append.entries:
            if entry.sequence > standing.newest:
                last = append.end if entry is append.entries[-1] else None
                if not self._append(entry, append.readers or {}, done, passes=last is not None):
                    return self._answer(Outcome.FULL, done)
                if last is not None:
                    self._end(last, closed=append.epoch == 0)
            done.accepted += 1
        return self._answer(Outcome.STORED, done)

    def _refused(self, append: Append) -> Appended | None:
        standing, entries = self.standing, append.entries
        if append.epoch and append.epoch < standing.epoch:
            return self._answer(Outcome.FENCED)
        if standing.ended:
            return self._answer(*self._repeated(append))
        if entries and (
            entries[0].sequence > standing.newest + 1
            or (append.epoch == 0 and entries[0].sequence != standing.newest + 1)
        ):
            return self._answer(Outcome.AHEAD)
        return None

    def _repeated(self, append: Append) -> tuple[Outcome, _Progress]:
        """Tell whether an append to a stream that ended says what was appended before."""
        standing, entries = self.standing, append.entries
        if append.epoch == 0:
            same = bool(entries) and self.entries.get(standing.newest) == entries[-1].data
            return (Outcome.STORED, _Progress(len(entries))) if same else (Outcome.ENDED, _Progress())
        # A sequence that an end took which is not the producer's own is not a repeated one.
        own = standing.newest - standing.closed
        accepted = sum(entry.sequence <= own for entry in entries)
        return (Outcome.STORED if accepted == len(entries) else Outcome.ENDED), _Progress(accepted)

    def _append(self, entry: Entry, readers: Mapping[str, int], done: _Progress, *, passes: bool) -> bool:
        """Append an event, or drop it; false when it has to wait."""
        policy = self.stream.limits.overflow
        fits = not done.first_dropped and self._make_room(len(entry.data), readers)
        if not fits and not passes:
            if policy != OverflowPolicy.OVERFLOW_POLICY_DROP_NEWEST:
                return False
            done.first_dropped = done.first_dropped or entry.sequence
            done.last_dropped = self.standing.newest = entry.sequence
            return True
        self.entries[entry.sequence] = entry.data
        self.size += len(entry.data)
        self.standing.newest = entry.sequence
        return True

    def _make_room(self, size: int, readers: Mapping[str, int]) -> bool:
        limits = self.stream.limits
        waits = limits.overflow in _WAITING
        consulted = False
        while self.entries and (len(self.entries) >= limits.max_items or self.size + size > limits.max_bytes):
            oldest = self.oldest
            if waits and not consulted and (readers or oldest > self.safe):
                consulted = True
                self._consult(readers)
            if waits and oldest > self.safe:
                return False
            self.size -= len(self.entries.pop(oldest))
        return True

    def _consult(self, readers: Mapping[str, int]) -> None:
        """Find out how far all have read."""
        now = time.time()
        for reader, position in readers.items():
            self.places[reader] = (position, now + self.resume_seconds)
        if readers:
            self.places.pop("", None)
        self.places = {reader: place for reader, place in self.places.items() if place[1] > now}
        self.safe = min((position for position, _ in self.places.values()), default=self.standing.newest)

    def place(self, place: Place) -> None:
        """See `StreamStore.place`."""
        if self.standing.ended or self.stream.limits.overflow not in _WAITING:
            return
        if place.seconds <= 0:
            self.places.pop(place.subscriber_id, None)
            return
        self.places[place.subscriber_id] = (place.position, time.time() + place.seconds)
        if place.subscriber_id:
            self.places.pop("", None)
        self.safe = min(self.safe, place.position)

    def read(self, after: int, items: int, size: int) -> Page | None:
        """See `StreamStore.read`."""
        self._forget()
        if not self.readable:
            return None
        found = [Entry(sequence, data) for sequence, data in self.entries.items() if sequence > after]
        page = _within(found[:items], size)
        return Page(entries=page, oldest=self.oldest, newest=self.standing.newest, ended=bool(self.standing.ended))

    def _end(self, end: StreamEnd, *, closed: bool) -> None:
        self.standing.end, self.standing.closed, self.standing.ended = end, closed, time.time()
        self.places.clear()

    def _forget(self) -> None:
        if self.buffer_gone <= time.time():
            self.entries.clear()

    def _answer(self, outcome: Outcome, done: _Progress | None = None) -> Appended:
        done = done or _Progress()
        items, size = self._room()
        return Appended(
            outcome=outcome,
            newest=self.standing.newest,
            oldest=self.oldest,
            accepted=done.accepted,
            dropped=(done.first_dropped, done.last_dropped) if done.first_dropped else None,
            room_items=items,
            room_bytes=size,
            epoch=self.standing.epoch,
        )

    def _room(self) -> tuple[int, int]:
        limits, kept = self.stream.limits, len(self.entries)
        if limits.overflow not in _WAITING or not kept:
            return limits.max_items, limits.max_bytes
        room = self._room_as_known()
        if room[0] * 2 < limits.max_items or room[1] * 2 < limits.max_bytes:
            self._consult({})
            room = self._room_as_known()
        return room

    def _room_as_known(self) -> tuple[int, int]:
        limits, kept = self.stream.limits, len(self.entries)
        going = min(kept, max(0, self.safe - self.oldest + 1))
        items = max(0, limits.max_items - kept + going)
        return items, max(0, limits.max_bytes - self.size + self.size * going // kept)


def _within(entries: Sequence[Entry], size: int) -> list[Entry]:
    """Return the first entries that have about so many bytes: at least one, and the one that reaches the size."""
    taken: list[Entry] = []
    for entry in entries:
        if size <= 0 and taken:
            break
        taken.append(entry)
        size -= len(entry.data)
    return taken
