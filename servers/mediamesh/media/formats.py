"""What bytes are, told from how they begin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mediamesh.media.layer3 import frame_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEAD_BYTES", "detect"]

# Enough of the begin of a file to tell what it is.
HEAD_BYTES = 1024

_MAGIC: Sequence[tuple[int, bytes, str]] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"\0\0\1\0", "image/x-icon"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheix", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypM4A ", "audio/mp4"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"FORM", "audio/aiff"),
    (0, b"#!AMR", "audio/amr"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"MZ", "application/x-msdownload"),
)
_MARKUP: Sequence[tuple[bytes, str]] = (
    (b"<!doctype html", "text/html"),
    (b"<html", "text/html"),
    (b"<script", "text/html"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "text/xml"),
)

# The element DocType of the header (RFC 8794 §11.2.4), its length in one byte.
_WEBM = re.compile(rb"\x42\x82[\x84-\x8f]webm")


def detect(head: bytes) -> str:
    """Return the media type of a file that begins with these bytes; ``application/octet-stream`` when unknown.

    A WebM or an MP4 may hold sound alone, which its begin does not tell; it is a video here.
    """
    for offset, magic, mime_type in _MAGIC:
        if head.startswith(magic, offset) and (offset != 8 or head.startswith(b"RIFF")):
            return mime_type
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm" if _WEBM.search(head) else "video/x-matroska"
    if frame_bytes(head[:4]):
        return "audio/mpeg"
    text = head[:HEAD_BYTES].lstrip().lower()
    for mark, mime_type in _MARKUP:
        if text.startswith(mark):
            return mime_type
    return "text/plain" if _is_text(head[:HEAD_BYTES]) else "application/octet-stream"


def _is_text(head: bytes) -> bool:
    # The last character may be cut in the middle; UTF-8 needs up to three bytes more.
    for cut in range(min(4, len(head))):
        try:
            return "\0" not in head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
    return False
