"""What is accepted: media types and sizes by kind of media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.wire.errors import MediaTooLarge, MultimodalNotSupported, UnsupportedMediaType

if TYPE_CHECKING:
    from mediamesh.media.facts import FactsReader

__all__ = ["Kind", "Kinds", "kind_name", "megabytes"]


def kind_name(kind: MediaType.ValueType) -> str:
    """Return ``image`` for ``MEDIA_TYPE_IMAGE``."""
    return MediaType.Name(kind).removeprefix("MEDIA_TYPE_").lower()


def megabytes(size_bytes: int) -> str:
    """Return a size as people read it beside the exact one."""
    return f"{size_bytes} bytes ({size_bytes / (1 << 20):.4g} MiB)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of media that is accepted.

    Attributes:
        type: The kind.
        accepted: Its media types.
        max_bytes: Largest object.
        reader: Reads its facts from the bytes.
        names: What this kind calls media types that the first bytes, or a caller, name otherwise.
    """

    type: MediaType.ValueType
    accepted: Sequence[str]
    max_bytes: int
    reader: FactsReader
    names: Mapping[str, str] = field(default_factory=dict)

    def named(self, mime_type: str) -> str:
        """Return the media type as this kind calls it, if it accepts it by that name."""
        own = self.names.get(mime_type, mime_type)
        return own if own in self.accepted else mime_type

    def admit_type(self, mime_type: str, *, field: str, what: str) -> None:
        """Raise :class:`UnsupportedMediaType` when the media type is not accepted."""
        if mime_type not in self.accepted:
            raise UnsupportedMediaType.of_field(
                field,
                f"{what} {mime_type}; accepted for {kind_name(self.type)} are {', '.join(self.accepted)}",
                found=mime_type,
                accepted=" ".join(self.accepted),
            )

    def admit_size(self, size_bytes: int, *, field: str, what: str) -> None:
        """Raise :class:`MediaTooLarge` when it is more than the limit."""
        if size_bytes > self.max_bytes:
            raise MediaTooLarge.of_field(
                field,
                f"{what} {size_bytes} bytes; the limit for {kind_name(self.type)} is {megabytes(self.max_bytes)}",
                limit_bytes=self.max_bytes,
            )


class Kinds:
    """All kinds of media that are accepted; none where media is switched off."""

    def __init__(self, *kinds: Kind, enabled: bool = True) -> None:
        self._kinds: Mapping[MediaType.ValueType, Kind] = {kind.type: kind for kind in kinds}
        self._enabled = enabled

    def of(self, kind: MediaType.ValueType, *, field: str) -> Kind:
        """Return the kind.

        Raises:
            MultimodalNotSupported: media is switched off.
            UnsupportedMediaType: it is not accepted.
        """
        self._admit()
        if found := self._kinds.get(kind):
            return found
        raise UnsupportedMediaType.of_field(
            field, f"{kind_name(kind)} is not accepted by this server; {self._sentence()}"
        )

    def of_mime_type(self, mime_type: str, *, field: str) -> Kind:
        """Return the kind that a media type belongs to.

        Raises:
            MultimodalNotSupported: media is switched off.
            UnsupportedMediaType: none accepts it.
        """
        self._admit()
        for kind in self._kinds.values():
            if mime_type in kind.accepted:
                return kind
        raise UnsupportedMediaType.of_field(
            field, f"{mime_type or 'no media type'} is not accepted; {self._sentence()}"
        )

    def _admit(self) -> None:
        if not self._enabled:
            raise MultimodalNotSupported("This mesh takes no media: it is switched off (ENABLE_MULTIMODAL).")

    def _sentence(self) -> str:
        kinds = (f"{kind_name(kind.type)} ({', '.join(kind.accepted)})" for kind in self._kinds.values())
        return f"accepted is {' and '.join(kinds)}"
