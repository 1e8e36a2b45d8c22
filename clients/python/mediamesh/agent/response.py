"""How one run answers: what its manifest declares, and what its caller asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.manifest_pb2 import ResponseChunkType, ResponseMode
from mediamesh.wire.errors import DeadlineExceeded, StreamingNotSupported, StreamTimeout
from mediamesh.wire.responses import may_stream

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

__all__ = ["Response", "agreed"]

_BUFFER_BYTES, _HEARTBEAT_MS, _MAX_DURATION_MS = 1024, 15_000, 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How the answers of one run go out.

    Attributes:
        streaming: In pieces while the agent works; else one final value.
        snapshots: A piece is all there is so far; else what is new.
        buffer_bytes: Text gathered before a piece is sent.
        heartbeat_seconds: Silence after which a chunk shows that the agent is alive.
        max_seconds: Longest the run may take; None for no limit of its own.
    """

    streaming: bool = False
    snapshots: bool = False
    buffer_bytes: int = _BUFFER_BYTES
    heartbeat_seconds: float = _HEARTBEAT_MS / 1000
    max_seconds: float | None = None

    def outlived(self) -> DeadlineExceeded:
        """Return the error for a run that took longer than it may."""
        text = f"The answer took longer than the {self.max_seconds:g} s that its module declares (max_duration_ms)."
        return (StreamTimeout if self.streaming else DeadlineExceeded)(text, seconds=f"{self.max_seconds:g}")


def agreed(manifest: Manifest, open_run: OpenRun) -> Response:
    """Return how a run answers.

    A module that declares nothing answers at once, one that only streams streams whatever is asked, and one that does
    both streams when it is asked to.

    Raises:
        StreamingNotSupported: a stream is asked of a module that answers at once.
    """
    declared = manifest.response
    asked = open_run.response_mode == ResponseMode.RESPONSE_MODE_STREAMING
    if asked and not may_stream(manifest):
        raise StreamingNotSupported(
            f"The module {manifest.id} answers at once (response.mode is sync); ask it for no stream.",
            agent=manifest.id,
        )
    streaming = asked or declared.mode == ResponseMode.RESPONSE_MODE_STREAMING
    longest_ms = declared.max_duration_ms or (_MAX_DURATION_MS if streaming else 0)
    return Response(
        streaming=streaming,
        snapshots=declared.chunk_type == ResponseChunkType.RESPONSE_CHUNK_TYPE_SNAPSHOT,
        buffer_bytes=declared.buffer_size or _BUFFER_BYTES,
        heartbeat_seconds=(declared.heartbeat_interval_ms or _HEARTBEAT_MS) / 1000,
        max_seconds=longest_ms / 1000 if longest_ms else None,
    )
