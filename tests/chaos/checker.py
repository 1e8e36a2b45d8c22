"""Reads a history and says what is wrong with it.

What must hold, whatever was killed: a reader sees rising sequences, none twice; what it misses was announced to it as a
gap; what it gets is what was published; what was acknowledged reaches every reader to the end, or is announced as lost;
and every reader sees the same end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.history import TERMINAL, Record

__all__ = ["faults"]

_READING = ("subscribed", "delivered", "gap", "completed", "left", "failed")


def faults(records: Iterable[Record], *, gaps: bool = False) -> list[str]:
    """Return a sentence for every fault of a history.

    Args:
        records: The history, in the order in which it happened.
        gaps: Whether events may be lost if it is said; where nothing may be lost a gap is a fault too.
    """
    by_stream: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_stream[record.stream_id].append(record)
    return [
        f"stream {stream_id}: {fault}"
        for stream_id, own in by_stream.items()
        for fault in _stream_faults(_Stream(own), gaps=gaps)
    ]


class _Stream:
    """What is known about one stream.

    Attributes:
        published: Digest of every event that was sent, by sequence and producer.
        acknowledged: Digest and event type of every event of which a producer knows that it is stored, by sequence.
        readers: Records of each reader.
        faults: What is wrong with the producers' side.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.published: dict[int, dict[str, Record]] = defaultdict(dict)
        self.acknowledged: dict[int, Record] = {}
        self.readers: dict[str, list[Record]] = defaultdict(list)
        self.is_closed = any(record.kind == "closed" for record in records)
        self.faults: list[str] = []
        for record in records:
            if record.kind == "published":
                self._publish(record)
            elif record.kind == "acknowledged":
                self._acknowledge(record)
            elif record.kind in _READING:
                self.readers[record.client].append(record)

    def _publish(self, record: Record) -> None:
        before = self.published[record.sequence].setdefault(record.client, record)
        if before.digest != record.digest:
            self.faults.append(f"{record.client} published two contents as {record.sequence}")

    def _acknowledge(self, record: Record) -> None:
        if record.sequence > max(self.published, default=0):
            self.faults.append(f"{record.sequence} was acknowledged to {record.client} before anybody published it")
        for sequence in range(record.sequence, 0, -1):
            own = self.published.get(sequence, {}).get(record.client)
            known = self.acknowledged.get(sequence)
            if known is not None and known.client == record.client:
                return
            if own is None:
                continue
            if known is not None and known.digest != own.digest:
                self.faults.append(f"two contents were acknowledged as {sequence}, to {known.client} and {own.client}")
            self.acknowledged.setdefault(sequence, own)


def _stream_faults(stream: _Stream, *, gaps: bool) -> Iterator[str]:
    yield from stream.faults
    readers = [_Reader(stream, client, records, gaps=gaps) for client, records in stream.readers.items()]
    for reader in readers:
        yield from (f"{reader.client}: {fault}" for fault in reader.faults)
    yield from _disagreements(readers)


class _Reader:
    """What one reader saw, and what is wrong with it."""

    def __init__(self, stream: _Stream, client: str, records: Sequence[Record], *, gaps: bool) -> None:
        self.client = client
        self.faults: list[str] = []
        self.contents: dict[int, str] = {}
        self.end = 0
        self._stream = stream
        self._may_lose = gaps
        self._position = self._after = next((one.sequence for one in records if one.kind == "subscribed"), 0)
        self._last_event = ""
        self._over = ""
        for record in records:
            if self._over and record.kind != "subscribed":
                self.faults.append(f"{record.kind} {record.sequence} came after it had {self._over}")
            getattr(self, f"_{record.kind}")(record)
        if not self._over:
            self.faults.append(f"never saw the end; its last position is {self._position}")

    def _subscribed(self, record: Record) -> None:
        # The same reader comes back, perhaps over another edge: it goes on from where it says that it is.
        if record.sequence != self._position:
            self.faults.append(f"came back at {record.sequence} and had read up to {self._position}")
        self._over = ""

    def _delivered(self, record: Record) -> None:
        sequence = record.sequence
        if sequence in self.contents:
            self.faults.append(f"{sequence} came twice")
        elif sequence <= self._position:
            self.faults.append(f"{sequence} came after {self._position}")
        elif sequence > self._position + 1:
            self.faults.append(f"{self._position + 1} to {sequence - 1} are missing in silence")
        self.contents[sequence] = record.digest
        self._position = max(self._position, sequence)
        self._last_event = record.event
        self._compare(record)

    def _compare(self, record: Record) -> None:
        acknowledged = self._stream.acknowledged.get(record.sequence)
        if acknowledged is not None:
            right = {acknowledged.digest}
        else:
            right = {one.digest for one in self._stream.published.get(record.sequence, {}).values()}
        if not right and self._stream.is_closed and record.event in TERMINAL:
            return
        if record.digest not in right:
            self.faults.append(f"{record.sequence} is not what was published")

    def _gap(self, record: Record) -> None:
        if not self._may_lose:
            self.faults.append(f"a gap from {record.sequence} to {record.last} where nothing may be lost")
        if record.sequence != self._position + 1 or record.last < record.sequence:
            self.faults.append(f"a gap from {record.sequence} to {record.last} came after {self._position}")
        self._position = max(self._position, record.last)

    def _completed(self, record: Record) -> None:
        self._over = "completed"
        self.end = self._position
        if self._last_event not in TERMINAL and self._position != self._after:
            self.faults.append(f"was told the end after {self._position}, which ends nothing")
        lost = [sequence for sequence in self._stream.acknowledged if sequence > self._position]
        if lost:
            self.faults.append(f"completed at {self._position}; {min(lost)} to {max(lost)} were acknowledged and lost")

    def _left(self, record: Record) -> None:
        self._over = "left"

    def _failed(self, record: Record) -> None:
        self._over = "failed"
        self.faults.append(f"saw an error over {record.edge}: {record.note}")


def _disagreements(readers: Sequence[_Reader]) -> Iterator[str]:
    ends = {reader.end for reader in readers if reader.end}
    if len(ends) > 1:
        yield f"readers saw different ends: {sorted(ends)}"
    contents: dict[int, str] = {}
    for reader in readers:
        for sequence, content in reader.contents.items():
            if contents.setdefault(sequence, content) != content:
                yield f"{sequence} differs between readers"
