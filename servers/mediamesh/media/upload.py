"""Takes uploads in: frames to a file, facts from the file, the file to the store; or nothing at all."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
import uuid
from typing import TYPE_CHECKING

from opentelemetry import metrics

from mediamesh.api.media.v1.media_service_pb2 import UploadFinish, UploadRequest, UploadResponse
from mediamesh.kit.to_the_end import to_the_end
from mediamesh.media.arrival import Arrival, Frames
from mediamesh.media.facts import canonical, compare
from mediamesh.media.limits import kind_name
from mediamesh.media.place import object_key
from mediamesh.wire.errors import Cancelled, NotImplementedByServer, StreamTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import BinaryIO

    from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaValue
    from mediamesh.api.media.v1.media_service_pb2 import UploadOpen
    from mediamesh.media.budget import Budget
    from mediamesh.media.catalogue import Catalogue
    from mediamesh.media.limits import Kind, Kinds
    from mediamesh.media.place import Addresses

__all__ = ["Uploads"]

_LOG = logging.getLogger(__name__)
# Prometheus shows it as mediamesh_multimodal_upload_size_bytes.
_SIZE = metrics.get_meter("mediamesh.media").create_histogram(
    "mediamesh_multimodal_upload_size",
    unit="By",
    description="Sizes of uploads that were taken in.",
    explicit_bucket_boundaries_advisory=[4**n * 1024 for n in range(10)],
)
# What one upload holds while it arrives, measured over 100 at once: a chunk, its frame, and what gRPC has read ahead.
_ARRIVING_BYTES = 3 * 1024 * 1024


class Uploads:
    """Takes uploads in, as many at once as the budget has room for; others wait."""

    def __init__(
        self,
        kinds: Kinds,
        catalogue: Catalogue,
        addresses: Addresses,
        budget: Budget,
        *,
        spool_directory: Path | None,
        idle_seconds: float,
        upload_seconds: float,
    ) -> None:
        self._kinds = kinds
        self._catalogue = catalogue
        self._addresses = addresses
        self._budget = budget
        self._spool_directory = spool_directory
        self._idle_seconds = idle_seconds
        self._upload_seconds = upload_seconds

    async def receive(self, requests: AsyncIterator[UploadRequest]) -> UploadResponse:
        """Take one upload in; nothing is stored unless everything passes.

        Raises:
            InvalidRequest: a frame is out of place or wrong, or a declared fact is.
            UnsupportedMediaType: the bytes are nothing that is accepted.
            MediaTooLarge: a limit is exceeded.
            MediaDecodeFailed: the bytes are damaged.
            ChecksumMismatch: the bytes are not those that were sent.
            StreamTimeout: the frames came too slowly.
            Unavailable: the store does not answer.
        """
        begin = time.perf_counter()
        frames = Frames(requests, idle_seconds=self._idle_seconds)
        opening = await frames.opening()
        kind = self._admit(opening)
        # The file has no name: whatever happens to the process, the system removes it.
        with tempfile.TemporaryFile(dir=self._spool_directory) as file:
            async with self._budget.reserve(_ARRIVING_BYTES):
                arrival = await self._arrived(frames, Arrival(file, kind, opening))
            media = await self._stored(opening, kind, arrival, file)
        _report(opening, media, seconds=time.perf_counter() - begin)
        return UploadResponse(media=media, upload_id=uuid.uuid4().hex)

    def _admit(self, opening: UploadOpen) -> Kind:
        """Refuse what can be refused before a byte came."""
        if opening.upload_id:
            raise NotImplementedByServer(
                "open.upload_id: this server does not continue uploads; leave it empty and begin at offset 0.",
                field="open.upload_id",
            )
        self._addresses.admit(opening.place.workspace_id, field="open.place.workspace_id")
        kind = self._kinds.of(opening.type, field="open.type")
        kind.admit_size(opening.size_bytes, field="open.size_bytes", what="is")
        if declared := opening.declared.mime_type:
            opening.declared.mime_type = kind.named(canonical(declared))
            kind.admit_type(opening.declared.mime_type, field="open.declared.mime_type", what="is")
        return kind

    async def _arrived(self, frames: Frames, arrival: Arrival) -> Arrival:
        try:
            async with asyncio.timeout(self._upload_seconds):
                async for part in frames.body():
                    if isinstance(part, UploadFinish):
                        await arrival.finish(part)
                    else:
                        await arrival.take(part)
        except TimeoutError:
            raise StreamTimeout(
                f"The upload took longer than {self._upload_seconds:g} s, the longest time allowed.",
                limit_seconds=self._upload_seconds,
            ) from None
        return arrival

    async def _stored(self, opening: UploadOpen, kind: Kind, arrival: Arrival, file: BinaryIO) -> MediaValue:
        """Return the reference that the workspace has to these bytes, or a new one when all is well with them."""
        known = await self._catalogue.find(opening.place.workspace_id, arrival.sha256)
        if known is not None and known.type == opening.type and known.ref.metadata.mime_type == arrival.mime_type:
            compare(opening.declared, known.ref.metadata)
            return known
        facts = await kind.reader.read(file, arrival.mime_type)
        compare(opening.declared, facts)
        left = asyncio.Event()
        return await to_the_end(self._commit(opening, facts, arrival, file, left), left)

    async def _commit(
        self, opening: UploadOpen, facts: MediaFacts, arrival: Arrival, file: BinaryIO, left: asyncio.Event
    ) -> MediaValue:
        """Store the object and then its pointer.

        It is not cut off, as a put that is cut off may happen or not. When the caller leaves before the pointer is
        there, the object goes again; afterwards others may have been given it.
        """
        key = object_key(opening.place, facts.mime_type)
        await self._catalogue.add(
            key, file, type_=opening.type, facts=facts, sha256=arrival.sha256, filename=opening.filename
        )
        if left.is_set():
            await self._catalogue.forget(key)
            raise Cancelled("The caller left before the object was stored.")
        other = await self._catalogue.settle(opening.place.workspace_id, arrival.sha256, key)
        return other or self._catalogue.value(
            key, type_=opening.type, facts=facts, sha256=arrival.sha256.hex(), size_bytes=arrival.size_bytes
        )


def _report(opening: UploadOpen, media: MediaValue, *, seconds: float) -> None:
    kind = kind_name(opening.type)
    # Which agent an upload belongs to is not part of the contract yet.
    agent_id = ""
    _SIZE.record(media.ref.size_bytes, {"type": kind, "agent_id": agent_id})
    _LOG.info(
        "multimodal_upload",
        extra={
            "event": "multimodal_upload",
            "type": kind,
            "size_bytes": media.ref.size_bytes,
            "mime_type": media.ref.metadata.mime_type,
            "storage_path": media.ref.url,
            "upload_duration_ms": round(seconds * 1000, 1),
            "agent_id": agent_id,
            "flow_id": opening.place.flow_id,
        },
    )
