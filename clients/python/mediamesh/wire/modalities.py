"""Which modalities a module takes and gives: text, and the kinds of media.

A manifest that declares none says it by its pins: each that carries media stands for its kind, all others are text. So
a manifest of before, which has neither modalities nor pins for media, is text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MultimodalNotSupported
from mediamesh.wire.json import short_name
from mediamesh.wire.pins import MEDIA_TYPES, Violation, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.media.v1.media_pb2 import MediaValue

__all__ = ["MODALITIES", "check_limits", "given_by", "refusal", "taken_by"]

_TEXT = "text"
_MEGABYTE = 1_000_000
_NAMED_BY_TYPE = {"image", "audio", "video"}

# What a manifest may declare.
MODALITIES = (_TEXT, *(short_name(MediaType.DESCRIPTOR, name) for name, number in MediaType.items() if number))


def taken_by(manifest: Manifest) -> frozenset[str]:
    """Return the modalities that a module takes."""
    return _declared(manifest.modalities.input, manifest.inputs)


def given_by(manifest: Manifest) -> frozenset[str]:
    """Return the modalities that a module gives."""
    return _declared(manifest.modalities.output, manifest.outputs)


def refusal(manifest: Manifest, pin: Pin, kind: MediaType.ValueType) -> MultimodalNotSupported | None:
    """Return the error for media that neither the input pin nor the module takes; None when one of them does.

    A pin for media, or for bytes, takes media; of which kind is the pin's own rule (E1010). A stream takes what its
    media types name. Everywhere else the modalities count.
    """
    name, taken = _name(kind), taken_by(manifest)
    if pin.type in {*MEDIA_TYPES, PinType.PIN_TYPE_BINARY} or name in taken:
        return None
    if pin.type == PinType.PIN_TYPE_STREAM and any(_names(pattern, name) for pattern in pin.constraints.mime_types):
        return None
    return MultimodalNotSupported(
        f"{manifest.id} takes {', '.join(sorted(taken))} and no {name} at `{pin.name}`.",
        agent=manifest.id,
        pin=pin.name,
        modality=name,
    )


def check_limits(manifest: Manifest, media: MediaValue) -> Iterator[Violation]:
    """Yield which limits of the module's modalities the media exceeds.

    As with pins, a reference must show what is limited; inline media has a size and no length yet.
    """
    limits = manifest.modalities.constraints
    most_bytes, most_seconds = limits.max_image_size_mb * _MEGABYTE, limits.max_audio_duration_s
    inline = media.HasField("inline")
    if media.type == MediaType.MEDIA_TYPE_IMAGE and most_bytes and not media.HasField("url"):
        size = len(media.inline) if inline else media.ref.size_bytes
        is_known = inline or size > 0
        if size > most_bytes or not is_known:
            kind, found = (
                (MediaTooLarge, f"{size / _MEGABYTE:g} MB") if is_known else (InvalidRequest, "of unknown size")
            )
            yield Violation(kind, f"must be at most {limits.max_image_size_mb:g} MB, is {found} (max_image_size_mb)")
    if media.type == MediaType.MEDIA_TYPE_AUDIO and most_seconds and media.HasField("ref"):
        lasts = media.ref.metadata.duration_seconds
        if not 0 < lasts <= most_seconds:
            kind, found = (MediaTooLarge, f"{lasts:g} s") if lasts else (InvalidRequest, "for an unknown time")
            yield Violation(kind, f"must last at most {most_seconds:g} s, lasts {found} (max_audio_duration_s)")


def _declared(modalities: Iterable[str], pins: Iterable[Pin]) -> frozenset[str]:
    by_pins = (type_name(pin.type) if pin.type in MEDIA_TYPES else _TEXT for pin in pins)
    return frozenset(modalities) or frozenset(by_pins)


def _name(kind: MediaType.ValueType) -> str:
    return short_name(MediaType.DESCRIPTOR, MediaType.Name(kind))


def _names(pattern: str, modality: str) -> bool:
    """Return whether a media type, or a pattern of several, is of a modality."""
    first = pattern.partition("/")[0]
    if first in {"*", modality}:
        return True
    return modality not in _NAMED_BY_TYPE and first not in {*_NAMED_BY_TYPE, _TEXT}
