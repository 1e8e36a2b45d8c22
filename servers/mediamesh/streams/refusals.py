"""What a producer is told whose events are not appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from mediamesh.streams.hub import no_stream
from mediamesh.streams.log.ports import Outcome
from mediamesh.streams.metrics import COUNTS
from mediamesh.wire.errors import FailedPrecondition, OutOfRange

if TYPE_CHECKING:
    from mediamesh.streams.log.ports import Appended

__all__ = ["refused"]


def refused(stream_id: str, sequence: int, epoch: int, appended: Appended) -> NoReturn:
    """Raise what an outcome other than STORED and FULL means.

    Args:
        stream_id: The stream.
        sequence: Sequence of the first event that was to be appended; 0 for none.
        epoch: Epoch of the producer.
        appended: What the store said.

    Raises:
        FailedPrecondition: another producer has taken over, or the stream has ended.
        OutOfRange: events before it are missing.
        NotFound: the stream has expired.
    """
    position = {"sequence": sequence} if sequence else {}
    match appended.outcome:
        case Outcome.FENCED:
            COUNTS.fenced += 1
            raise FailedPrecondition(
                f"A producer with epoch {appended.epoch} has taken over the stream {stream_id}; epoch {epoch} may not"
                " publish any more.",
                stream_id=stream_id,
                epoch=appended.epoch,
                **position,
            )
        case Outcome.ENDED:
            raise FailedPrecondition(
                f"The stream {stream_id} ended with event {appended.newest}.",
                stream_id=stream_id,
                last_sequence=appended.newest,
                **position,
            )
        case Outcome.AHEAD:
            raise OutOfRange(
                f"Event {sequence} of the stream {stream_id} comes too early: the next one is {appended.newest + 1}.",
                stream_id=stream_id,
                next_sequence=appended.newest + 1,
                **position,
            )
        case _:
            raise no_stream(stream_id)
