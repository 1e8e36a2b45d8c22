"""Facts about media: who reads them, how they are compared with what a caller declares, how an object carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from google.protobuf import json_format

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.wire.errors import InvalidRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["FactsReader", "canonical", "compare", "from_text", "to_text"]

_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}


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

    Raises:
        UnsupportedMediaType: the media types differ.
        InvalidRequest: another fact differs.
    """
    differing = [
        (f"open.declared.{field.name}", f"{value!r} is declared, and the bytes say {getattr(found, field.name)!r}")
        for field, value in declared.ListFields()
        if (canonical(value) if field.name == "mime_type" else value) != getattr(found, field.name)
    ]
    if not differing:
        return
    mistaken = any(field == "open.declared.mime_type" for field, _ in differing)
    raise (UnsupportedMediaType if mistaken else InvalidRequest).of_fields(differing)


def to_text(facts: MediaFacts) -> str:
    """Return the facts as an object's metadata carries them: ASCII, one line."""
    return json_format.MessageToJson(facts, indent=None, ensure_ascii=True)


def from_text(text: str) -> MediaFacts:
    """Return the facts that an object carries; none when the text is not ours."""
    try:
        return json_format.Parse(text or "{}", MediaFacts(), ignore_unknown_fields=True)
    except json_format.ParseError:
        return MediaFacts()
