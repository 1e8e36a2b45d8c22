"""The rules of media in a chunk: data that fits its encoding, pieces that add up, facts that match the bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping

from mediamesh.api.stream.v1 import chunk_pb2 as pb

__all__ = ["Problem", "media_problems", "progress_problems"]

Problem = tuple[str, str]
"""The path of a field, and what it must be."""

_ARMS: Mapping[int, tuple[str, frozenset[str]]] = {
    pb.MEDIA_ENCODING_BASE64: ("base64", frozenset({"text"})),
    pb.MEDIA_ENCODING_URL: ("url", frozenset({"text", "ref"})),
    pb.MEDIA_ENCODING_FILE_PATH: ("file_path", frozenset({"text"})),
    pb.MEDIA_ENCODING_BINARY: ("binary", frozenset({"binary"})),
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]+")


def media_problems(media: pb.Media) -> Iterator[Problem]:
    """Yield what is wrong with media, attachments included."""
    yield from _one(media)
    for index, attachment in enumerate(media.attachments):
        field = f"attachments[{index}]"
        if attachment.attachments:
            yield f"{field}.attachments", "must be empty: an attachment has none of its own"
        if attachment.is_partial:
            yield f"{field}.is_partial", "must be false: an attachment within media is whole"
        for name, text in _one(attachment):
            yield f"{field}.{name}", text


def progress_problems(progress: pb.MediaProgress) -> Iterator[Problem]:
    """Yield what is wrong with the progress of a transfer."""
    if 0 < progress.total_bytes < progress.bytes_transferred:
        yield "bytes_transferred", f"must be at most total_bytes, {progress.total_bytes}"


def _one(media: pb.Media) -> Iterator[Problem]:
    arm = media.WhichOneof("data")
    encoding, arms = _ARMS.get(media.encoding, ("", frozenset()))
    if arm is None or not encoding:
        # The rules of single fields say so.
        return
    if arm not in arms:
        yield "encoding", f"{encoding} does not fit data that is {_NAMES[arm]}"
        return
    data: bytes | None = media.binary if arm == "binary" else None
    if media.encoding == pb.MEDIA_ENCODING_BASE64:
        try:
            data = base64.b64decode(media.text, validate=True)
        except (binascii.Error, ValueError):
            yield "data", "must be base64 with padding"
            return
    yield from _pieces(media, is_bytes=data is not None)
    if data is None:
        yield from _address(media, arm)
    else:
        yield from _facts(media, data)
    if media.HasField("progress"):
        for name, text in progress_problems(media.progress):
            yield f"progress.{name}", text


_NAMES = {"binary": "bytes", "text": "text", "ref": "a reference"}


def _pieces(media: pb.Media, *, is_bytes: bool) -> Iterator[Problem]:
    last = media.total_chunks - 1
    if not is_bytes and (media.is_partial or media.chunk_index or media.total_chunks > 1):
        yield "is_partial", "must be false, and the piece the only one: an address is whole"
    elif media.total_chunks and media.chunk_index > last:
        yield "chunk_index", f"must be below total_chunks, {media.total_chunks}, is {media.chunk_index}"
    elif media.total_chunks and media.is_partial and media.chunk_index == last:
        yield "is_partial", f"must be false: piece {last} is the last of {media.total_chunks}"
    elif media.total_chunks and not media.is_partial and media.chunk_index < last:
        yield "is_partial", f"must be true: piece {media.chunk_index} is not the last of {media.total_chunks}"


def _address(media: pb.Media, arm: str) -> Iterator[Problem]:
    known = media.metadata
    if arm == "ref":
        if known.size_bytes and media.ref.size_bytes and known.size_bytes != media.ref.size_bytes:
            yield "metadata.size_bytes", f"must be that of the reference, {media.ref.size_bytes}"
        if known.checksum and media.ref.sha256 and known.checksum != media.ref.sha256:
            yield "metadata.checksum", f"must be that of the reference, {media.ref.sha256}"
    elif media.encoding == pb.MEDIA_ENCODING_URL and not _URL.fullmatch(media.text):
        yield "data", "must be an address with a scheme, such as https://host/path"
    elif not media.text or "\0" in media.text:
        yield "data", "must be a path"


def _facts(media: pb.Media, data: bytes) -> Iterator[Problem]:
    size = media.metadata.size_bytes
    if media.is_partial or media.chunk_index:
        # A piece: its bytes tell an upper bound only.
        if size and len(data) > size:
            yield "metadata.size_bytes", f"must be that of the whole: this piece alone has {len(data)}"
        return
    if not data:
        yield "data", "must not be empty"
    if size and size != len(data):
        yield "metadata.size_bytes", f"must be {len(data)}, as many as there are bytes, is {size}"
    checksum = media.metadata.checksum
    if checksum and checksum != (actual := hashlib.sha256(data).hexdigest()):
        yield "metadata.checksum", f"must be the SHA-256 of the data, {actual}"
