"""The outline of a picture, read from its structure alone: how large it is, what it takes to decode it, where it ends.

No pixel is decoded and nothing is allocated that the bytes could inflate, so this is safe on anything. Sources: PNG
third edition §5; GIF89a §17-27; the WebP container (RFC 9649 §2); JPEG (ITU-T T.81 annex B).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.wire.errors import MediaDecodeFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from mmap import mmap

__all__ = ["OUTLINES", "Outline"]

# A real picture of 20 MB has some 80 000 blocks (GIF, 255 bytes each); walking half a million takes a quarter second.
_MOST_BLOCKS = 500_000
# In JPEG's coded data FF is followed by 00 or a restart marker; whatever else follows is a marker that ends the data.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What the structure of a picture says.

    Attributes:
        width: Of the whole picture, in pixels.
        height: Of the whole picture, in pixels.
        frames: More than 1 when it is animated.
        decode_bytes: Memory that decoding it takes, at most.
        end: Position of the first byte that is no part of it.
    """

    width: int
    height: int
    frames: int = 1
    decode_bytes: int
    end: int


def _damaged(kind: str, what: str) -> MediaDecodeFailed:
    return MediaDecodeFailed.of_field("chunk.data", f"the {kind} is damaged or cut off: {what}")


def _png(data: mmap) -> Outline:
    size, still, frames, end = (0, 0), 0, 0, 0
    for name, begin, length in _png_chunks(data):
        if begin == 16:
            if name != b"IHDR" or length != 13:
                raise _damaged("PNG", "it does not begin with its header")
            size = struct.unpack_from(">II", data, begin)
        if name == b"IDAT" and not frames:
            still = 1  # the picture for those who know no animation, if one follows
        frames += name == b"fcTL"
        end = begin + length + 4
    pixels = size[0] * size[1]
    # Pillow holds 4 bytes a pixel; an animation is composed from two more pictures.
    return Outline(
        width=size[0],
        height=size[1],
        frames=still + frames,
        decode_bytes=pixels * (12 if frames else 4),
        end=end,
    )


def _png_chunks(data: mmap) -> Iterator[tuple[bytes, int, int]]:
    position = 8
    for _ in range(_MOST_BLOCKS):
        if position + 12 > len(data):
            raise _damaged("PNG", f"the chunk IEND is missing after byte {position}")
        length, name = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            raise _damaged("PNG", f"{len(data)} bytes are there, and a chunk ends at {position + 12 + length}")
        yield name, position + 8, length
        if name == b"IEND":
            return
        position += 12 + length
    raise _damaged("PNG", f"it has more than {_MOST_BLOCKS} chunks")


def _gif(data: mmap) -> Outline:
    if len(data) < 14:
        raise _damaged("GIF", "its header is incomplete")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_bytes(flags)
    frames, blocks = 0, 0
    try:
        while (kind := data[position]) != 0x3B:
            if kind == 0x2C:
                left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, position + 1)
                width, height = max(width, left + wide), max(height, top + high)
                position += 11 + _palette_bytes(flags)
                frames += 1
            elif kind == 0x21:
                position += 2
            else:
                raise _damaged("GIF", f"byte {position} begins no block")
            while length := data[position]:
                position += 1 + length
                blocks += 1
            position += 1
            if (blocks := blocks + 1) > _MOST_BLOCKS:
                raise _damaged("GIF", f"it has more than {_MOST_BLOCKS} blocks")
    except (IndexError, struct.error):
        raise _damaged("GIF", f"{len(data)} bytes are there, and more should follow") from None
    # Indices and a picture; for an animation also what it is drawn on and what is restored after a frame.
    per_pixel = 16 if frames > 1 else 6
    return Outline(width=width, height=height, frames=frames, decode_bytes=width * height * per_pixel, end=position + 1)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: mmap) -> Outline:
    if len(data) < 30:
        raise _damaged("WebP", "its header is incomplete")
    end = 8 + int(struct.unpack_from("<I", data, 4)[0])
    if end > len(data):
        raise _damaged("WebP", f"{len(data)} bytes are there, and its header says {end}")
    width, height = _webp_size(data)
    frames, position = 0, 12
    for _ in range(_MOST_BLOCKS):
        if position + 8 > end:
            break
        name, length = struct.unpack_from("<4sI", data, position)
        frames += name == b"ANMF"
        position += 8 + length + length % 2
    # Two canvases of the decoder, the frame as bytes and as a picture, and the file, which is read as a whole.
    return Outline(
        width=width, height=height, frames=max(1, frames), decode_bytes=width * height * 16 + len(data), end=end
    )


def _webp_size(data: mmap) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int(struct.unpack_from("<I", data, 21)[0])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise _damaged("WebP", "its first chunk is no picture")


def _jpeg(data: mmap) -> Outline:
    position, frame = 2, None
    for _ in range(_MOST_BLOCKS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise _damaged("JPEG", f"its end is missing after {len(data)} bytes")
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return _jpeg_outline(frame, position)
        if marker in _JPEG_ALONE:
            continue
        if position + 2 > len(data):
            raise _damaged("JPEG", f"it stops in a segment at byte {position}")
        length = int.from_bytes(data[position : position + 2], "big")
        if frame is None and marker in _JPEG_FRAMES:
            frame = marker, data[position : position + 8]
        position += length
    raise _damaged("JPEG", f"it has more than {_MOST_BLOCKS} segments")


def _jpeg_outline(frame: tuple[int, bytes] | None, end: int) -> Outline:
    if frame is None or len(frame[1]) < 8:
        raise _damaged("JPEG", "it has no frame header")
    marker, header = frame
    height, width, components = struct.unpack_from(">HHB", header, 3)
    # It is decoded at an eighth of its size; a progressive one keeps all coefficients, two bytes each, until its end.
    per_pixel = 2 * components if marker in _JPEG_PROGRESSIVE else 1
    return Outline(width=width, height=height, decode_bytes=width * height * per_pixel, end=end)


OUTLINES: Mapping[str, Callable[[mmap], Outline]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/gif": _gif,
    "image/webp": _webp,
}
"""How each format is outlined; the bytes must begin as the format does."""
