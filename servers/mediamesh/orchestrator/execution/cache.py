"""Results of agents, kept for the same agent, inputs and parameters; the agent's manifest says that this is sound."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from google.protobuf import proto
from opentelemetry import metrics

from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, RunResponse
from mediamesh.wire.errors import MeshError, NotFound

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.orchestrator.execution.outbox import Capture
    from mediamesh.orchestrator.storage import RunMedia

__all__ = ["Place", "ResultCache", "Results"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.orchestrator")
_LOOKS = _METER.create_counter(
    "mediamesh_flow_cache", description="Nodes whose result could have come from the cache, by whether it did."
)
_HOUR_SECONDS = 3600.0


class Results(Protocol):
    """Where results are kept: Valkey, or memory."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, if it is.

        Raises:
            Unavailable: the store cannot be reached.
        """
        ...

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        """Keep something for so long.

        Raises:
            Unavailable: the store cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the result of a node belongs: its key, and for how many seconds."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ResultCache:
    """The cache as a run uses it; trouble with it is no trouble of the run.

    Attributes:
        results: Where they are kept; None keeps none.
        max_bytes: Largest result that is kept.
    """

    results: Results | None
    max_bytes: int

    def place(self, manifest: Manifest | None, node: FlowNode, opening: OpenRun) -> Place | None:
        """Return where the result of a node belongs; None where it may not come from the cache.

        That is so where its agent's manifest does not allow it or its flow forbids it, where it takes streams, and
        where the identity of its media is not known.
        """
        if self.results is None or manifest is None or opening.stream_inputs:
            return None
        if not manifest.cache.enabled or (node.HasField("cache") and not node.cache):
            return None
        identity = _identity(manifest, opening)
        if identity is None:
            return None
        ttl = manifest.cache.ttl.ToNanoseconds() / 1e9
        return Place(f"mm:proc:{node.type}:{identity}", ttl if ttl > 0 else _HOUR_SECONDS)

    async def find(self, place: Place, media: RunMedia) -> list[RunResponse] | None:
        """Return what the node gave another time, if that is known and its media still there."""
        if self.results is None:
            return None
        frames, outcome = None, "miss"
        try:
            data = await self.results.get(place.key)
            if data is not None:
                frames, outcome = [await _known(frame, media) for frame in _read(data)], "hit"
        except NotFound:
            outcome = "stale"
        except MeshError as error:
            outcome = "error"
            _LOG.warning("the cache of results was not asked: %s", error.text)
        _LOOKS.add(1, {"outcome": outcome})
        return frames

    async def keep(self, place: Place, given: Capture) -> None:
        """Keep what a node gave, unless it was too much."""
        if self.results is None or given.frames is None:
            return
        try:
            await self.results.put(place.key, _written(given.frames), place.seconds)
        except MeshError as error:
            _LOG.warning("a result was not kept: %s", error.text)


def _identity(manifest: Manifest, opening: OpenRun) -> str | None:
    """Return the SHA-256 of all that the result depends on; media count by the hash of their bytes."""
    told = OpenRun(
        agent_id=f"{manifest.id}@{manifest.version}", params=opening.params, response_mode=opening.response_mode
    )
    # References are good within their workspace, and so is what is made of them.
    told.context.workspace_id = opening.context.workspace_id
    for pin, value in opening.inputs.items():
        if not _is_identified(value):
            return None
        told.inputs[pin].CopyFrom(value)
        if value.media.HasField("ref"):
            # Where the bytes lie does not matter.
            told.inputs[pin].media.ref.Clear()
            told.inputs[pin].media.ref.sha256 = value.media.ref.sha256
    return hashlib.sha256(told.SerializeToString(deterministic=True)).hexdigest()


def _is_identified(value: Value) -> bool:
    match value.media.WhichOneof("source") if value.HasField("media") else "plain":
        case "ref":
            return bool(value.media.ref.sha256)
        case "inline" | "plain":
            return True
        case _:
            return False


async def _known(frame: RunResponse, media: RunMedia) -> RunResponse:
    """Return the frame, its media looked up.

    Raises:
        NotFound: the media is gone.
    """
    if frame.output.value.HasField("media"):
        frame.output.value.CopyFrom(await media.known(frame.output.value))
    return frame


def _written(frames: Sequence[RunResponse]) -> bytes:
    out = io.BytesIO()
    for frame in frames:
        proto.serialize_length_prefixed(frame, out)
    return out.getvalue()


def _read(data: bytes) -> list[RunResponse]:
    frames, source = list[RunResponse](), io.BytesIO(data)
    while (frame := proto.parse_length_prefixed(RunResponse, source)) is not None:
        frames.append(frame)
    return frames
