"""A stream as it stands, of what was said when it was opened and of what changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEnd, StreamState
from mediamesh.streams.log.ports import Stored

__all__ = ["Standing", "opened", "stored_of", "unreadable"]


@dataclass(slots=True)
class Standing:
    """What changes about a stream.

    Attributes:
        epoch: Epoch of the producer that may append.
        producer_id: Who that is; empty when nobody is, or when it is not known.
        newest: Sequence of the newest event, dropped ones counted.
        end: How it ended.
        ended: When it ended, in seconds; 0 while it lives.
        closed: Whether somebody else than its producer ended it.
    """

    epoch: int = 0
    producer_id: str = ""
    newest: int = 0
    end: StreamEnd | None = None
    ended: float = 0
    closed: bool = False


def opened(stream: Stream) -> Stream:
    """Return what is kept of a stream from its opening: nothing that changes."""
    head = Stream()
    head.CopyFrom(stream)
    for changing in ("state", "end_time", "first_sequence", "last_sequence", "epoch", "end"):
        head.ClearField(changing)
    return head


def stored_of(head: Stream, token_digest: str, standing: Standing, *, oldest: int, readable: bool) -> Stored:
    """Return a stream as it stands."""
    stream = Stream()
    stream.CopyFrom(head)
    stream.state = StreamState.STREAM_STATE_LIVE
    stream.first_sequence = oldest if readable else 0
    stream.last_sequence = standing.newest
    stream.epoch = standing.epoch
    if standing.end is not None:
        failed = standing.closed or standing.end.HasField("error")
        stream.state = StreamState.STREAM_STATE_FAILED if failed else StreamState.STREAM_STATE_ENDED
        stream.end.CopyFrom(standing.end)
        stream.end_time.FromMilliseconds(round(standing.ended * 1000))
    return Stored(
        stream=stream,
        token_digest=token_digest,
        producer_id=standing.producer_id,
        readable=readable,
        closed=standing.closed,
    )


def unreadable(stored: Stored) -> Stored:
    """Return a stream whose events are no longer kept."""
    stored.stream.first_sequence = 0
    return replace(stored, readable=False)
