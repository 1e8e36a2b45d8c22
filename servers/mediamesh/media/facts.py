"""Facts about media: who reads them, how they are compared with what a caller declares, how an object carries them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf import json_format

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.wire.errors import InvalidRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["FactsReader", "canonical", "compare", "from_text", "to_text"]

_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/opus": "audio/ogg",
    "application/ogg": "audio/ogg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "application/x-pdf": "application/pdf",
}
# Programs round what they tell: 29.97 for 30000/1001 frames a second; a player counts the last frame, or does not.
_FPS_AGREE, _SECONDS_AGREE = 0.0005, 0.1


class FactsReader(Protocol):
    """Reads facts of one kind of media from its bytes."""

    async def read(self, file: BinaryIO, mime_type: str) -> MediaFacts:
        """Return the facts, having decoded all of it; ``mime_type`` is what its first bytes say.

        Raises:
            UnsupportedMediaType: it is more than one thing.
            MediaTooLarge: decoding would exceed a limit.
            MediaDecodeFailed: it is damaged.
        """
        ...


def canonical(mime_type: str) -> str:
    """Return a media type in lower case, without parameters, and by its registered name."""
    bare = mime_type.partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare)


def compare(declared: MediaFacts, found: MediaFacts) -> None:
    """Hold what a caller declares against what the bytes say; what is not declared is not compared.

    Frame rates may differ by half a thousandth, and durations by a tenth of a second, as nobody tells them exactly.

    Raises:
        UnsupportedMediaType: the media types differ.
        InvalidRequest: another fact differs.
    """
    differing = [
        (f"open.declared.{field.name}", f"{value!r} is declared, and the bytes say {getattr(found, field.name)!r}")
        for field, value in declared.ListFields()
        if not _agrees(field.name, value, found)
    ]
    if not differing:
        return
    mistaken = any(field == "open.declared.mime_type" for field, _ in differing)
    raise (UnsupportedMediaType if mistaken else InvalidRequest).of_fields(differing)


def _agrees(name: str, value: Any, found: MediaFacts) -> bool:
    match name:
        case "mime_type":
            return canonical(value) == found.mime_type
        case "fps":
            return math.isclose(value, found.fps, rel_tol=_FPS_AGREE)
        case "duration_seconds":
            return math.isclose(value, found.duration_seconds, abs_tol=_SECONDS_AGREE)
    return bool(value == getattr(found, name))


def to_text(facts: MediaFacts) -> str:
    """Return the facts as an object's metadata carries them: ASCII, one line."""
    return json_format.MessageToJson(facts, indent=None, ensure_ascii=True)


def from_text(text: str) -> MediaFacts:
    """Return the facts that an object carries; none when the text is not ours."""
    try:
        return json_format.Parse(text or "{}", MediaFacts(), ignore_unknown_fields=True)
    except json_format.ParseError:
        return MediaFacts()
