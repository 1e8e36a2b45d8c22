"""What a subscriber was given and may not have: it lies in buffers on the way, and goes with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.api.stream.v1.stream_pb2 import StreamLimits

__all__ = ["Transit"]

# What gRPC, the door and the kernel hold for a reader that stops: measured, some 900 KiB.
_MOST_BYTES = 1024 * 1024
_MARKS = 16


class Transit:
    """Tells up to which event a subscriber has everything: the last megabyte that it was given may be on its way.

    That is never more than half of the buffer of the stream, nor so much that three events of the largest size seen do
    not fit beside it: what waits for something to arrive must not be what keeps it from moving.

    Attributes:
        arrived: Sequence of that event.
    """

    __slots__ = ("_base", "_bytes", "_items", "_largest", "_marks", "_room", "_total", "arrived")

    def __init__(self, position: int, limits: StreamLimits) -> None:
        self.arrived = position
        self._base = (position, 0)
        self._marks: list[tuple[int, int]] = []
        self._total = 0
        self._largest = 0
        self._items = limits.max_items // 2
        self._bytes = min(_MOST_BYTES, limits.max_bytes // 2)
        self._room = limits.max_bytes

    def give(self, position: int, size: int) -> None:
        """Note that events of so many bytes, up to a position, are on their way."""
        last, _ = self._marks[-1] if self._marks else self._base
        self._largest = max(self._largest, size // max(1, position - last))
        self._total += size
        start = self._marks[-2][1] if len(self._marks) > 1 else self._base[1]
        if self._marks and (self._total - start) * _MARKS < self._bytes:
            self._marks[-1] = position, self._total
            return
        self._marks.append((position, self._total))
        if len(self._marks) > _MARKS:
            self.look()

    def look(self) -> int:
        """Find out what has arrived, and return it."""
        if not self._marks:
            return self.arrived
        position = self._marks[-1][0]
        through = self._total - max(0, min(self._bytes, self._room - 3 * self._largest))
        while self._marks and self._marks[0][1] <= through:
            self._base = self._marks.pop(0)
        arrived, begin = self._base
        if self._marks and through > begin:
            # The mark is coarse; within it events count as equal in size.
            last, end = self._marks[0]
            arrived += (last - arrived) * (through - begin) // (end - begin)
        self.arrived = max(self.arrived, arrived, position - self._items)
        return self.arrived

    def rest(self, position: int) -> None:
        """Take all as arrived: nothing was under way for long enough."""
        self._marks.clear()
        self._base = position, self._total
        self.arrived = position
