"""Finds what hides in a file: a second one that other programs would see in the same bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from mediamesh.media.formats import HEAD_BYTES
from mediamesh.wire.errors import UnsupportedMediaType

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["refuse_foreign"]

# A ZIP is read from its end: a record of 22 bytes and a comment of at most 64 KiB.
_ZIP_TAIL_BYTES = 22 + 65_535
_COPIED = 64 * 1024


def refuse_foreign(data: mmap, mime_type: str, end: int) -> None:
    """Look at what follows the end of what a file is, and at what else its bytes could be taken for.

    Cameras put more behind the end of a JPEG: a smaller picture or a gain map (a JPEG), a clip (ISO media), Samsung's
    trailer. Those and zero bytes may stay.

    Raises:
        UnsupportedMediaType: there is something else.
    """
    head = data[:HEAD_BYTES].lower()
    for mark, what in ((b"%pdf-", "a PDF"), (b"<script", "a script"), (b"<html", "a web page")):
        if mark in head and not (mime_type == "application/pdf" and mark == b"%pdf-"):
            raise _refused(f"begins as {mime_type} and is also {what}")
    if _has_zip(data):
        raise _refused(f"is {mime_type} and also a ZIP archive")
    if end < len(data) and not (mime_type == "image/jpeg" and _from_camera(data, end)) and not _is_zero(data, end):
        raise _refused(f"is {mime_type} that ends after {end} bytes, and {len(data) - end} others follow")


def _refused(what: str) -> UnsupportedMediaType:
    return UnsupportedMediaType.of_field("chunk.data", f"{what}; a file must be one thing only")


def _from_camera(data: mmap, end: int) -> bool:
    begin = data[end : end + 64]
    return begin.lstrip(b"\0").startswith(b"\xff\xd8\xff") or b"ftyp" in begin or data[-4:] == b"SEFT"


def _is_zero(data: mmap, position: int) -> bool:
    while piece := data[position : position + _COPIED]:
        if piece.count(0) != len(piece):
            return False
        position += len(piece)
    return True


def _has_zip(data: mmap) -> bool:
    """Look for a directory of a ZIP that is where its end record says; four equal bytes alone may be chance."""
    tail = max(0, len(data) - _ZIP_TAIL_BYTES)
    at = len(data)
    while (at := data.rfind(b"PK\x05\x06", tail, at)) >= 0:
        if at + 22 <= len(data):
            entries, size = struct.unpack_from("<HI", data, at + 10)
            if entries and size <= at and data[at - size : at - size + 4] == b"PK\x01\x02":
                return True
    return False
