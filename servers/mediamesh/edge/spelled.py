"""Events as frames, spelled once for all sockets that read the same stream at about the same place."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from mediamesh.wire.binary_frames import pack
from mediamesh.wire.stream_json import event_apart, event_object
from mediamesh.wire.strict_json import dumps

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import StreamEvent

__all__ = ["Spelled"]

_MOST_BYTES = 8 * 1024 * 1024


class Spelled:
    """Keeps the frames that were spelled last.

    An event of a stream never changes; but a store that has lost it lets another one take its place, at another time.
    """

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[str, int, int, bool], str | bytes] = OrderedDict()
        self._bytes = 0

    def frame(self, event: StreamEvent, *, is_text: bool) -> str | bytes:
        """Return an event as a frame: text, or bytes when media goes beside its JSON.

        Args:
            event: The event.
            is_text: Whether bytes of media go in the JSON, as base64.
        """
        key = (event.stream_id, event.sequence, event.timestamp.ToNanoseconds(), is_text)
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = _spell(event, is_text=is_text)
            self._bytes += len(frame)
            while self._bytes > _MOST_BYTES:
                self._bytes -= len(self._frames.popitem(last=False)[1])
        return frame


def _spell(event: StreamEvent, *, is_text: bool) -> str | bytes:
    spelled, data = (event_object(event), None) if is_text else event_apart(event)
    return dumps(spelled) if data is None else pack(spelled, data)
