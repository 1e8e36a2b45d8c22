"""How chunks and the media in them are spelled: by their kind, with the data of media under one key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.api.stream.v1 import chunk_pb2 as pb
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.status_json import status_from_object, status_object
from mediamesh.wire.strict_json import Spelling, as_object, at

__all__ = ["KINDS", "SPELLING", "chunk_apart", "detached_media"]

_API = "mediamesh.api.stream.v1"
_MEDIA_API = "mediamesh.api.media.v1"
_HEAD = ("sequence_number", "source", "timestamp")
_DATA = frozenset({"data", "binary", "text"})

KINDS: Mapping[str, Any] = {field.name: field for field in pb.Chunk.DESCRIPTOR.oneofs_by_name["payload"].fields}
"""The kinds of chunks, in the contract's order."""


def chunk_apart(chunk: pb.Chunk) -> tuple[dict[str, Any], bytes | None]:
    """Return a chunk's object, and the bytes of its media when there are some and they are not in it.

    ``data`` is null then.
    """
    media = _media(chunk)
    if media is None or not media.binary:
        return _write_chunk(chunk), None
    return _head(chunk, _flat(media, inline=False)), media.binary


def detached_media(chunk: pb.Chunk) -> pb.Media | None:
    """Return the media whose bytes were not in the object that the chunk was read from; None when nothing lacks."""
    media = _media(chunk)
    return media if media is not None and _lacks_bytes(media) else None


def _media(chunk: pb.Chunk) -> pb.Media | None:
    kind = chunk.WhichOneof("payload")
    return getattr(chunk, kind) if kind in {"media", "attachment", "attachment_complete"} else None


def _write_chunk(chunk: pb.Chunk) -> dict[str, Any]:
    kind = chunk.WhichOneof("payload")
    return _head(chunk, SPELLING.write(getattr(chunk, kind)) if kind else None)


def _head(chunk: pb.Chunk, body: Any) -> dict[str, Any]:
    kind = chunk.WhichOneof("payload") or ""
    spelled = {
        "kind": kind,
        "sequence_number": chunk.sequence_number,
        "source": chunk.source,
        "timestamp": SPELLING.write(chunk.timestamp) if chunk.HasField("timestamp") else None,
    }
    return spelled | {kind: body} if kind else spelled


def _read_chunk(value: Any, path: str) -> pb.Chunk:
    given = as_object(value, path)
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidRequest.of_field(at(path, "kind"), f"must be one of {', '.join(KINDS)}")
    if kind not in given:
        raise InvalidRequest.of_field(at(path, kind), "must be set: it is the kind of the chunk")
    chunk = pb.Chunk()
    SPELLING.read_fields(given, chunk, path, frozenset({"kind"}))
    if chunk.WhichOneof("payload") != kind:
        raise InvalidRequest.of_field(at(path, kind), "must be an object")
    return chunk


def _write_media(media: pb.Media) -> dict[str, Any]:
    return _flat(media, inline=True)


def _flat(media: pb.Media, *, inline: bool) -> dict[str, Any]:
    # First what it is and how it is carried, as the contract lists them; then the data, under one name.
    spelled: dict[str, Any] = {}
    for key, value in SPELLING.fields(media).items():
        if key == "binary":
            spelled["encoding"] = "base64" if inline else "binary"
            spelled["data"] = base64.b64encode(value).decode() if inline else None
        else:
            spelled["data" if key == "text" else key] = value
    return spelled


def _read_media(value: Any, path: str) -> pb.Media:
    given = as_object(value, path)
    for name in ("binary", "text"):
        if name in given:
            raise InvalidRequest.of_field(at(path, name), "is unknown here; what media carries is data")
    media = pb.Media()
    SPELLING.read_fields(given, media, path, _DATA)
    if given.get("data") is not None:
        _read_data(media, given["data"], at(path, "data"))
    for index, attachment in enumerate(media.attachments):
        if _lacks_bytes(attachment):
            where = at(at(path, "attachments"), index)
            raise InvalidRequest.of_field(at(where, "encoding"), "must be base64: only the media itself goes apart")
    return media


def _read_data(media: pb.Media, data: Any, path: str) -> None:
    if not isinstance(data, str):
        raise InvalidRequest.of_field(path, "must be text")
    if media.HasField("ref"):
        raise InvalidRequest.of_field(path, "stands beside ref; one is allowed")
    if media.encoding == pb.MEDIA_ENCODING_BINARY:
        raise InvalidRequest.of_field(path, "must be null: binary data goes beside the JSON, within it is base64")
    try:
        if media.encoding == pb.MEDIA_ENCODING_BASE64:
            # Bytes are bytes inside the mesh.
            media.binary = base64.b64decode(data, validate=True)
            media.encoding = pb.MEDIA_ENCODING_BINARY
        else:
            media.text = data
    except binascii.Error:
        raise InvalidRequest.of_field(path, "must be base64 with padding") from None
    except ValueError:
        raise InvalidRequest.of_field(path, "must be text that UTF-8 can carry") from None


def _lacks_bytes(media: pb.Media) -> bool:
    return media.encoding == pb.MEDIA_ENCODING_BINARY and media.WhichOneof("data") is None


SPELLING = Spelling(
    writers={
        f"{_API}.Chunk": _write_chunk,
        f"{_API}.Media": _write_media,
        "google.rpc.Status": status_object,
    },
    readers={
        f"{_API}.Chunk": _read_chunk,
        f"{_API}.Media": _read_media,
        "google.rpc.Status": status_from_object,
    },
    when_set={
        f"{_API}.StreamMetadata": frozenset({"reason"}),
        f"{_API}.Media": frozenset({"caption"}),
        f"{_API}.MediaMetadata": frozenset(pb.MediaMetadata.DESCRIPTOR.fields_by_name),
        f"{_API}.AgentStatus": frozenset({"detail"}),
        f"{_API}.Progress": frozenset({"message"}),
        f"{_API}.ResultMeta": frozenset({"session_id", "risk", "explain"}),
        f"{_MEDIA_API}.MediaReference": frozenset({"size_bytes", "sha256"}),
        f"{_MEDIA_API}.MediaFacts": frozenset(MediaFacts.DESCRIPTOR.fields_by_name),
    },
)
"""The spelling of everything that streams."""
