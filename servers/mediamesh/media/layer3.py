"""MP3: where its frames are. The format has no header of its own, so frames and tags are all there is to walk.

Sources: ISO/IEC 11172-3 §2.4.1 and 13818-3 (frame headers); ID3v2.4; the Xing header as LAME writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.wire.errors import MediaDecodeFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

__all__ = ["frame_bytes", "walk_layer3"]

# kbit/s of layer III, by version and index; 0 (left open) and 15 (forbidden) are no frame.
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_SAMPLES_PER_SECOND = (44_100, 48_000, 32_000, 0)
# Between frames and tags some programs leave a gap; what is larger is something else.
_GAP_BYTES = 4096
_LEADING_BYTES = 64 * 1024


def frame_bytes(header: bytes) -> int:
    """Return the length of the frame of layer III that begins with these four bytes; 0 when none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version = header[1] >> 3 & 3  # 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5
    rate = _SAMPLES_PER_SECOND[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 0)
    kilobits = (_RATES_1 if version == 3 else _RATES_2)[header[2] >> 4]
    if version == 1 or not rate or not kilobits:
        return 0
    return (144_000 if version == 3 else 72_000) * kilobits // rate + (header[2] >> 1 & 1)


def walk_layer3(data: mmap, go_on: Callable[[], None]) -> int:
    """Return where an MP3 ends, tags included.

    Args:
        data: All of it.
        go_on: Called for each frame, tag and gap; raises when the work is to end.

    Raises:
        MediaDecodeFailed: it has no frame, its last one is cut off, or there are fewer than its first one says.
    """
    size = len(data)
    first = position = _first_frame(data, _tag_end(data, 0))
    frames = 0
    while position < size:
        go_on()
        if length := frame_bytes(data[position : position + 4]):
            if position + length > size:
                raise _damaged(f"{size} bytes are there, and its last frame ends at {position + length}")
            position += length
            frames += 1
        else:
            after = _tag_end(data, position)
            if after == position:  # no tag: only then what follows is searched, which takes a thousand times as long
                after = _next_frame(data, position, _GAP_BYTES)
            if after < 0:
                break
            position = after
    announced = _announced(data[first : first + 64])
    if frames < announced:
        raise _damaged(f"{frames} frames are there, and it says that it has {announced}")
    return min(position, size)


def _damaged(what: str) -> MediaDecodeFailed:
    return MediaDecodeFailed.of_field("chunk.data", f"the MP3 is damaged or cut off: {what}")


def _tag_end(data: mmap, position: int) -> int:
    """Return where the tag that begins at a position ends; the position itself when none does."""
    head = data[position : position + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        end = position + 10 + size + (10 if head[5] & 0x10 else 0)
        if end > len(data):
            raise _damaged(f"{len(data)} bytes are there, and its tag ends at {end}")
        return end
    if head[:3] == b"TAG" and position + 128 >= len(data):
        return position + 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        # The size counts the items and the footer; bit 29 of the flags tells the header from the footer.
        is_header = head[23] & 0x20
        return position + 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
    return position


def _first_frame(data: mmap, position: int) -> int:
    if (found := _next_frame(data, position, _LEADING_BYTES)) < 0:
        raise _damaged("it has no frame")
    return found


def _next_frame(data: mmap, position: int, within: int) -> int:
    """Return where the next frame is whose successor is one too, or is the end; -1 when there is none."""
    end = min(len(data), position + within)
    while (position := data.find(b"\xff", position, end)) >= 0:
        after = position + frame_bytes(data[position : position + 4])
        if after > position and (after >= len(data) or frame_bytes(data[after : after + 4]) or _is_tag(data, after)):
            return position
        position += 1
    return -1


def _is_tag(data: mmap, position: int) -> bool:
    return data[position : position + 3] in {b"TAG", b"ID3", b"APE"}


def _announced(frame: bytes) -> int:
    """Return how many frames the first one says that there are; it may or may not count itself."""
    at = max(frame.find(mark, 0, -8) for mark in (b"Xing", b"Info"))  # flags and number follow, 4 bytes each
    if at < 0 or not frame[at + 7] & 1:
        return 0
    return int.from_bytes(frame[at + 8 : at + 12], "big")
