"""The structure of a recording, without decoding it: that it is whole, where it ends, and that its index is no bomb.

Each reader walks what its container is made of, from one length to the next; nothing is allocated that the bytes could
inflate. Sources: RIFF and WAVE (Microsoft, 1991); RFC 3533 (Ogg); RFC 9639 (FLAC); RFC 8794 and RFC 9559 (WebM);
ISO/IEC 14496-12 (MP4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.media.layer3 import walk_layer3
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from mmap import mmap

    GoOn = Callable[[], None]

__all__ = ["STRUCTURES", "Structure"]

# 25 MB of Opus in blocks of 20 ms are 300 000; walking a million takes about a second.
_MOST_PARTS = 1_000_000
# A film of two hours with its sound has 770 000; a decoder holds up to 32 bytes for each.
_MOST_SAMPLES = 2_000_000
# Programs that write a WAV to what cannot be sought leave 0 as its lengths, or about the largest number there is.
_OPEN_LENGTH = 0x7FFF_F000
_BOXES_OF_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the structure of a recording says.

    Attributes:
        end: Position of the first byte that is no part of it.
        samples: How many samples a channel must have; 0 where it does not say.
    """

    end: int
    samples: int = 0


def _damaged(kind: str, what: str) -> MediaDecodeFailed:
    return MediaDecodeFailed.of_field("chunk.data", f"the {kind} is damaged or cut off: {what}")


def _wav(data: mmap, go_on: GoOn) -> Structure:
    size = len(data)
    if size < 12:
        raise _damaged("WAV", "its header is incomplete")
    riff = int(struct.unpack_from("<I", data, 4)[0])
    position, found = 12, False
    while position + 8 <= size and (not found or position < riff + 8):
        go_on()
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            found = True
            if not 0 < length < _OPEN_LENGTH and not 0 < riff < _OPEN_LENGTH:
                return Structure(end=size)
        if position + 8 + length > size:
            raise _damaged("WAV", f"{size} bytes are there, and a part of it ends at {position + 8 + length}")
        position += 8 + length + length % 2
    if not found:
        raise _damaged("WAV", "it has no data")
    return Structure(end=min(position, size))


def _ogg(data: mmap, go_on: GoOn) -> Structure:
    position, size = 0, len(data)
    for _ in range(_MOST_PARTS):
        go_on()
        if data[position : position + 4] != b"OggS":
            break
        table = position + 27
        segments = data[position + 26] if table <= size else 0
        end = table + segments + sum(data[table : table + segments])
        if table + segments > size or end > size:
            raise _damaged("Ogg", f"{size} bytes are there, and a page ends after them")
        position = end
    return Structure(end=position)


def _flac(data: mmap, go_on: GoOn) -> Structure:
    position, size, last = 4, len(data), False
    samples = int.from_bytes(data[21:26], "big") & 0xF_FFFF_FFFF
    while not last:
        go_on()
        if position + 4 > size:
            raise _damaged("FLAC", "its header is incomplete")
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    if position >= size:
        raise _damaged("FLAC", "no sound follows its header")
    return Structure(end=size, samples=samples)


def _webm(data: mmap, go_on: GoOn) -> Structure:
    """Walk the elements of the segment; whoever records live leaves the lengths of segment and clusters open."""
    size = len(data)
    _, length, position = _element(data, 0)
    position += length if length is not None else size
    name, length, position = _element(data, position)
    if name != _SEGMENT:
        raise _damaged("WebM", "its segment is missing")
    end = size if length is None else position + length
    if end > size:
        raise _damaged("WebM", f"{size} bytes are there, and its segment ends at {end}")
    for _ in range(_MOST_PARTS):
        go_on()
        if position >= end:
            return Structure(end=end)
        name, length, position = _element(data, position)
        if length is None and name != _CLUSTER:
            raise _damaged("WebM", f"the element {name:X} has no length")
        position += length or 0
        if position > end:
            raise _damaged("WebM", f"{end} bytes are there, and an element ends at {position}")
    raise _damaged("WebM", f"it has more than {_MOST_PARTS} elements")


def _element(data: mmap, position: int) -> tuple[int, int | None, int]:
    """Return an element's name, its length (None when it is left open), and where its content begins."""
    try:
        width = 9 - data[position].bit_length()
        name = int.from_bytes(data[position : position + width], "big")
        position += width
        bits = 9 - data[position].bit_length()
        length = int.from_bytes(data[position : position + bits], "big") & ((1 << 7 * bits) - 1)
    except IndexError:
        raise _damaged("WebM", f"{len(data)} bytes are there, and an element should follow") from None
    if width > 4 or bits > 8 or position + bits > len(data):
        raise _damaged("WebM", f"byte {position} begins no element")
    return name, None if length == (1 << 7 * bits) - 1 else length, position + bits


def _mp4(data: mmap, go_on: GoOn) -> Structure:
    found, samples, end = set[bytes](), 0, 0
    for name, begin, end in _boxes(data, 0, len(data)):
        go_on()
        found.add(name)
        samples += _samples(data, name, begin, end)
        if samples > _MOST_SAMPLES:
            raise MediaTooLarge.of_field(
                "chunk.data", f"the MP4 says that it has {samples} samples; the limit is {_MOST_SAMPLES} samples"
            )
    if b"moov" not in found:
        raise _damaged("MP4", "its index (moov) is missing")
    return Structure(end=end)


def _boxes(data: mmap, position: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield every box with its begin and end, those inside of a box before it."""
    for _ in range(_MOST_PARTS):
        if position >= end:
            return
        name, begin, stop = _box(data, position, end)
        if depth == 0 and not name.isalnum():
            return  # what follows is no MP4; the last box told where that begins
        if stop > end:
            raise _damaged("MP4", f"{end} bytes are there, and its part {name.decode('latin-1')} ends at {stop}")
        if name in _BOXES_OF_BOXES and depth < 8:
            yield from _boxes(data, begin, stop, depth + 1)
        yield name, begin, stop
        position = stop
    raise _damaged("MP4", f"it has more than {_MOST_PARTS} parts")


def _box(data: mmap, position: int, end: int) -> tuple[bytes, int, int]:
    if position + 8 > end:
        raise _damaged("MP4", f"it stops in the head of a part at byte {position}")
    length, name = struct.unpack_from(">I4s", data, position)
    begin = position + 8
    if length == 1:
        if begin + 8 > end:
            raise _damaged("MP4", f"it stops in the head of a part at byte {position}")
        length, begin = int(struct.unpack_from(">Q", data, begin)[0]), begin + 8
    elif length == 0:
        length = end - position
    if position + length < begin:
        raise _damaged("MP4", f"the part at byte {position} is {length} bytes long")
    return name, begin, position + length


def _samples(data: mmap, name: bytes, begin: int, end: int) -> int:
    """Return how many samples a table has; their sizes may all be equal, and then a few bytes stand for any number."""
    at = {b"stsz": begin + 8, b"stz2": begin + 8, b"trun": begin + 4}.get(name)
    return int(struct.unpack_from(">I", data, at)[0]) if at is not None and at + 4 <= end else 0


def _mp3(data: mmap, go_on: GoOn) -> Structure:
    return Structure(end=walk_layer3(data, go_on))


STRUCTURES: Mapping[str, Callable[[mmap, GoOn], Structure]] = {
    "audio/wav": _wav,
    "audio/mpeg": _mp3,
    "audio/ogg": _ogg,
    "audio/flac": _flac,
    "audio/webm": _webm,
    "audio/mp4": _mp4,
    "video/webm": _webm,
    "video/mp4": _mp4,
}
"""How each container is walked; the bytes must begin as it does.

The function beside them is called for each part, and raises when the work is to end.
"""
