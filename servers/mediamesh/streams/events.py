"""Events as bytes: spelled once when they are accepted, and forwarded as they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.protobuf import timestamp_pb2

from mediamesh.api.stream.v1 import stream_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamEventType, StreamPayload
    from mediamesh.streams.log.ports import Entry

__all__ = ["Batch", "Event", "Speller", "event_of", "is_last"]

# Tags of length-delimited fields: field number times 8, plus 2.
_EVENTS = b"\x0a"  # SubscribeResponse.events, and StreamEvents.events in it
_TYPE, _SEQUENCE, _TIMESTAMP, _PAYLOAD = b"\x08", b"\x28", b"\x32", b"\x3a"
_SHORT = [bytes((number,)) for number in range(0x80)]
_LAST = (stream_pb2.STREAM_EVENT_TYPE_STREAM_END, stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR)


class Event:
    """One event on its way to subscribers.

    Attributes:
        sequence: Its position in the stream.
        frame: A whole ``SubscribeResponse`` with this one event.
        accepted: When this replica accepted it, by the clock of the loop; 0 when another one did.
    """

    __slots__ = ("_data_at", "_item_at", "_rendered", "accepted", "frame", "sequence")

    def __init__(self, sequence: int, data: bytes, accepted: float = 0.0) -> None:
        self.sequence = sequence
        self.accepted = accepted
        self._rendered: dict[str, bytes] | None = None
        size = _varint(len(data))
        outer = _varint(1 + len(size) + len(data))
        self.frame = b"".join((_EVENTS, outer, _EVENTS, size, data))
        self._item_at = 1 + len(outer)
        self._data_at = self._item_at + 1 + len(size)

    @property
    def rendered(self) -> dict[str, bytes]:
        """The event in other forms, by their name; edges keep here what they spell once for all readers."""
        if self._rendered is None:
            self._rendered = {}
        return self._rendered

    @property
    def data(self) -> bytes:
        """The event as a serialised ``StreamEvent``."""
        return self.frame[self._data_at :]

    @property
    def item(self) -> memoryview:
        """The event as an entry of ``StreamEvents``, with tag and length."""
        return memoryview(self.frame)[self._item_at :]

    @property
    def item_size(self) -> int:
        """Bytes of the item."""
        return len(self.frame) - self._item_at


class Batch:
    """Events that follow each other without a hole.

    Attributes:
        events: One at least, in order.
        size: Their bytes, about.
    """

    __slots__ = ("_frame", "events", "size")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._frame: bytes | None = None
        if len(events) == 1:
            self._frame = events[0].frame
            self.size = len(self._frame)
        else:
            self.size = sum([len(event.frame) for event in events])

    def frame(self) -> bytes:
        """Return one ``SubscribeResponse`` with all the events; many readers of one batch share it."""
        if self._frame is None:
            # In one piece at once: to join the items before costs more than all else, as it takes fresh memory.
            size = sum([event.item_size for event in self.events])
            self._frame = b"".join([_EVENTS, _varint(size), *[event.item for event in self.events]])
        return self._frame


class Speller:
    """Spells the events of one stream; what they have in common it has spelled before."""

    def __init__(self, stream: Stream) -> None:
        common = stream_pb2.StreamEvent(stream_id=stream.stream_id, node_id=stream.node_id, pin_name=stream.pin_name)
        self._common = common.SerializeToString() + _SEQUENCE
        self._heads: dict[int, bytes] = {}

    def spell(self, sequence: int, event_type: StreamEventType.ValueType, payload: StreamPayload | None) -> bytes:
        """Return an event that is accepted now as a serialised ``StreamEvent``."""
        head = self._heads.get(event_type)
        if head is None:
            head = self._heads[event_type] = _TYPE + _varint(event_type) + self._common
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        stamp = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos).SerializeToString()
        if payload is None:
            return b"".join((head, _varint(sequence), _TIMESTAMP, _varint(len(stamp)), stamp))
        data = payload.SerializeToString()
        size = _varint(len(data))
        return b"".join((head, _varint(sequence), _TIMESTAMP, _varint(len(stamp)), stamp, _PAYLOAD, size, data))


def event_of(entry: Entry) -> Event:
    """Return the event of an entry of the log."""
    return Event(entry.sequence, entry.data)


def is_last(data: bytes) -> bool:
    """Return whether no event follows this one, by the type that `Speller` puts first."""
    return data[:1] == _TYPE and data[1] in _LAST


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SHORT[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
