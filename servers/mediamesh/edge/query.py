"""What the address of a socket asks for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mediamesh.api.stream.v1.stream_service_pb2 import PublishOpen
from mediamesh.kit.boundary import checked
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Query", "number"]

_DIGITS_OF_64_BITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a socket is for.

    Attributes:
        stream_id: The stream.
        after: Sequence of the last event that the reader has.
        allow_gap: Whether a reader that comes too late goes on after a gap, in place of an error.
        subscriber_id: The reader's own id.
        is_text: Whether bytes of media go in the JSON, as base64.
        opening: What a producer says first; None for a reader.
    """

    stream_id: str
    after: int
    allow_gap: bool
    subscriber_id: str
    is_text: bool
    opening: PublishOpen | None

    @classmethod
    def of(cls, stream_id: str, query: Mapping[str, str]) -> Self:
        """Return what an address asks for; what it does not know it leaves to others.

        Raises:
            InvalidRequest: a value is not one that it may be; names it.
        """
        media = query.get("media", "binary")
        if media not in {"binary", "base64"}:
            raise InvalidRequest.of_field("media", f"must be binary or base64, not {media[:32]!r}", stream_id=stream_id)
        return cls(
            stream_id=stream_id,
            after=number(query, "after", stream_id=stream_id),
            allow_gap=_flag(query, "allow_gap", stream_id),
            subscriber_id=query.get("subscriber_id") or uuid.uuid4().hex,
            is_text=media == "base64",
            opening=_opening(stream_id, query) if _flag(query, "publish", stream_id) else None,
        )


def _opening(stream_id: str, query: Mapping[str, str]) -> PublishOpen:
    opening = PublishOpen(
        stream_id=stream_id,
        publish_token=query.get("token", ""),
        producer_id=query.get("producer_id", ""),
        epoch=number(query, "epoch", stream_id=stream_id),
    )
    checked(opening)
    return opening


def number(query: Mapping[str, str], name: str, **subject: str) -> int:
    """Return a parameter of an address that counts something, 0 when it is not there.

    Args:
        query: The parameters.
        name: Its name.
        subject: What the address is about, for the error.

    Raises:
        InvalidRequest: it is no whole number.
    """
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS_OF_64_BITS):
        raise InvalidRequest.of_field(name, f"must be a whole number, not {text[:32]!r}", **subject)
    return int(text)


def _flag(query: Mapping[str, str], name: str, stream_id: str) -> bool:
    text = query.get(name) or "0"
    if text not in {"0", "1", "false", "true"}:
        raise InvalidRequest.of_field(name, f"must be 1 or 0, not {text[:32]!r}", stream_id=stream_id)
    return text in {"1", "true"}
