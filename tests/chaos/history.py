"""What happened, as those outside of the broker saw it: every publish, acknowledgement and delivery, with its time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamEventType, StreamGap, StreamPayload

__all__ = ["TERMINAL", "History", "Record", "digest"]

TERMINAL = ("stream_end", "stream_error")


class Record(NamedTuple):
    """One thing that happened.

    Attributes:
        time: Monotonic clock of the machine, the same in all its processes.
        kind: ``published`` (before it is sent), ``acknowledged`` (all up to ``sequence``), ``closed`` (the broker was
            asked to end the stream), ``subscribed`` (after ``sequence``), ``delivered``, ``gap`` (``sequence`` to
            ``last``), ``completed`` (the stream ended for the reader), ``left`` (the reader was to stop), ``failed``
            (a client saw an error; ``note`` says which).
        client: Who saw it.
        edge: Over which edge.
        digest: Of what the event carries.
        event: Type of the event.
    """

    time: float
    kind: str
    stream_id: str
    client: str
    edge: str = "grpc"
    sequence: int = 0
    last: int = 0
    digest: str = ""
    event: str = ""
    note: str = ""


def digest(event_type: str, payload: StreamPayload) -> str:
    """Return the digest of what an event carries; a client library may number a chunk and stamp it with the time."""
    content = StreamPayload()
    content.CopyFrom(payload)
    if content.HasField("data"):
        for field in ("sequence_number", "timestamp", "source"):
            content.data.ClearField(field)
    return hashlib.sha256(event_type.encode() + b"\0" + content.SerializeToString(deterministic=True)).hexdigest()[:16]


class History:
    """Collects records, in the order in which they happened."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records = list(records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def add(self, kind: str, stream_id: str, client: str, **fields: object) -> None:
        """Note what happened just now."""
        self.records.append(Record(time.monotonic(), kind, stream_id, client, **fields))  # type: ignore[arg-type]

    def published(self, stream_id: str, client: str, sequence: int, event_type: str, payload: StreamPayload) -> None:
        """Note an event that is about to be sent."""
        self.add(
            "published", stream_id, client, sequence=sequence, event=event_type, digest=digest(event_type, payload)
        )

    def delivered(self, client: str, edge: str, stream_id: str, item: StreamEvent | StreamGap) -> None:
        """Note what a reader got."""
        if isinstance(item, StreamGap):
            fields: Mapping[str, object] = {"sequence": item.first_sequence, "last": item.last_sequence}
            self.add("gap", stream_id, client, edge=edge, **fields)
            return
        name = StreamEventType.Name(item.event_type).removeprefix("STREAM_EVENT_TYPE_").lower()
        if item.stream_id != stream_id:
            self.add("failed", stream_id, client, edge=edge, note=f"got an event of stream {item.stream_id}")
        self.add(
            "delivered",
            stream_id,
            client,
            edge=edge,
            sequence=item.sequence,
            event=name,
            digest=digest(name, item.payload),
        )

    def of(self, kind: str) -> list[Record]:
        """Return the records of a kind."""
        return [record for record in self.records if record.kind == kind]

    def dump(self, path: Path) -> None:
        """Write one JSON array a line."""
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def load(self, lines: Iterable[str]) -> None:
        """Add what another process noted, at its time."""
        self.records.extend(Record(*json.loads(line)) for line in lines if line.startswith("["))
        self.records.sort(key=lambda record: record.time)
