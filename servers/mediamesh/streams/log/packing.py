"""How streams are spelled in Valkey: the numbers of the hash ``stream:meta``, and what scripts answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd
from mediamesh.streams.log.ports import Appended, Entry, News, Outcome, Page, Stored
from mediamesh.streams.log.snapshot import Standing, stored_of

__all__ = [
    "END_MARK",
    "NEW",
    "Rules",
    "Situation",
    "appended_of",
    "entries_of",
    "news_of",
    "page_of",
    "rules_of",
    "stored_from",
]

# epoch, newest, items, bytes, oldest, safe (all counted readers have read so far), ended, closed (not by its producer)
_NOW = Struct(">8Q")
# policy, max_items, max_bytes, deadline, resume, buffer_ttl, meta_ttl
_RULES = Struct(">7Q")
_ANSWER = Struct(">10Q")
_OUTCOMES = (Outcome.GONE, Outcome.STORED, Outcome.FULL, Outcome.FENCED, Outcome.ENDED, Outcome.AHEAD)

# Stands before the bytes of an end, which may be none.
END_MARK = b"="
NEW = _NOW.pack(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How long what is kept; in milliseconds.

    Attributes:
        resume: How long the place of somebody who may still come is kept.
        buffer_ttl: How long events outlive the end of their stream.
        meta_ttl: How long all else does.
    """

    resume: int
    buffer_ttl: int
    meta_ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a sweep needs to know of a stream.

    Attributes:
        ended: Whether it ended.
        deadline: When it has lived long enough, in milliseconds.
    """

    ended: bool
    deadline: int

    @classmethod
    def of(cls, now: bytes, rules: bytes) -> Situation:
        """Return what the fields of the hash say."""
        return cls(ended=_NOW.unpack(now)[6] > 0, deadline=_RULES.unpack(rules)[3])


def rules_of(stream: Stream, deadline: int, rules: Rules) -> bytes:
    """Return the field ``rules`` of a stream."""
    limits = stream.limits
    return _RULES.pack(
        limits.overflow,
        limits.max_items,
        limits.max_bytes,
        deadline,
        rules.resume,
        rules.buffer_ttl,
        rules.meta_ttl,
    )


def appended_of(answer: bytes | None) -> tuple[Appended, bool]:
    """Return what became of an append or a take, and whether the producer changed."""
    if answer is None:
        return Appended(outcome=Outcome.GONE), False
    outcome, newest, oldest, accepted, first, last, items, size, epoch, taken = _ANSWER.unpack(answer)
    appended = Appended(
        outcome=_OUTCOMES[outcome],
        newest=newest,
        oldest=oldest,
        accepted=accepted,
        dropped=(first, last) if first else None,
        room_items=items,
        room_bytes=size,
        epoch=epoch,
    )
    return appended, bool(taken)


def stored_from(fields: Sequence[bytes]) -> Stored | None:
    """Return a stream from names and values of its hash, its events taken as kept; None when there are none."""
    parts = dict(zip(fields[::2], fields[1::2], strict=True))
    if b"head" not in parts:
        return None
    epoch, newest, _, _, oldest, _, ended, closed = _NOW.unpack(parts[b"now"])
    standing = Standing(
        epoch=epoch,
        producer_id=parts.get(b"producer", b"").decode(),
        newest=newest,
        end=StreamEnd.FromString(parts[b"end"].removeprefix(END_MARK)) if ended else None,
        ended=ended / 1000,
        closed=bool(closed),
    )
    head, digest = Stream.FromString(parts[b"head"]), parts[b"token"].decode()
    return stored_of(head, digest, standing, oldest=oldest, readable=True)


def page_of(answer: tuple[int, int, int, Sequence[bytes]]) -> Page:
    """Return what was read."""
    newest, oldest, ended, found = answer
    entries = [Entry(_sequence(entry), data) for entry, data in zip(found[::2], found[1::2], strict=True)]
    return Page(entries=entries, oldest=oldest, newest=newest, ended=ended > 0)


def entries_of(found: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Entry]:
    """Return the events of a stream that a poll found."""
    return [Entry(_sequence(entry), fields[1]) for entry, fields in found]


def news_of(found: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[News]:
    """Return the news that were found."""
    return [
        News(
            position=entry.decode(),
            kind=fields[1].decode(),
            stream=Stream.FromString(fields[3]),
            replica=fields[5].decode(),
        )
        for entry, fields in found
    ]


def _sequence(entry: bytes) -> int:
    """Return the sequence that the id of an entry, ``SEQUENCE-0``, carries."""
    return int(entry[:-2])
