"""What streams of this mesh can carry, and on which transports they can be read."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from mediamesh.api.stream.v1.stream_service_pb2 import (
    GetCapabilitiesResponse,
    MultimodalCapabilities,
    StreamCapabilities,
)
from mediamesh.wire.modalities import MODALITIES

if TYPE_CHECKING:
    from mediamesh.streams.settings import Settings

__all__ = ["TRANSPORTS", "capabilities_of"]

TRANSPORTS = ("grpc", "grpc-web", "sse", "ndjson", "websocket")
_TEXT = ("text",)


def capabilities_of(settings: Settings) -> GetCapabilitiesResponse:
    """Return the capabilities as they travel; what is switched off is not among them."""
    modalities = MODALITIES if settings.enable_multimodal else _TEXT
    return GetCapabilitiesResponse(
        runtime="mediamesh",
        version=version("mediamesh"),
        capabilities=StreamCapabilities(
            streaming=settings.enable_streaming,
            multimodal=MultimodalCapabilities(input=modalities, output=modalities),
            max_media_size_mb=settings.max_media_size_mb if settings.enable_multimodal else 0,
            supported_transports=TRANSPORTS if settings.enable_streaming else (),
        ),
    )
