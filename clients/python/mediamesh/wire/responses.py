"""How modules answer: at once, or in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

__all__ = ["may_stream"]

_STREAMS = {ResponseMode.RESPONSE_MODE_STREAMING, ResponseMode.RESPONSE_MODE_BOTH}


def may_stream(manifest: Manifest) -> bool:
    """Return whether a stream may be asked of a module; one that declares nothing answers at once."""
    return manifest.response.mode in _STREAMS
