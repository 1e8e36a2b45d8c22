"""What streams of this mesh can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version

from mediamesh.api.stream.v1.stream_service_pb2 import (
    GetCapabilitiesResponse,
    MultimodalCapabilities,
    StreamCapabilities,
)

__all__ = ["TRANSPORTS", "Capabilities"]

TRANSPORTS = ("grpc", "grpc-web", "sse", "ndjson", "websocket")
_MODALITIES = ("text", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What is told to who asks.

    Attributes:
        input: Modalities that are taken.
        output: Modalities that are given.
        max_media_megabytes: Largest media.
        transports: On which streams can be read.
    """

    input: Sequence[str] = _MODALITIES
    output: Sequence[str] = _MODALITIES
    max_media_megabytes: float = 20.0
    transports: Sequence[str] = TRANSPORTS

    def told(self) -> GetCapabilitiesResponse:
        """Return them as they travel."""
        return GetCapabilitiesResponse(
            runtime="mediamesh",
            version=installed_version("mediamesh"),
            capabilities=StreamCapabilities(
                streaming=True,
                multimodal=MultimodalCapabilities(input=self.input, output=self.output),
                max_media_size_mb=self.max_media_megabytes,
                supported_transports=self.transports,
            ),
        )
