"""Media on its way through a flow: bytes go to the media server, and references go on."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.media.v1 import media_pb2, media_service_pb2
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType, MediaValue
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace, StatResponse
from mediamesh.wire.errors import MediaFetchFailed
from mediamesh.wire.pins import MEDIA_TYPES

__all__ = ["MediaStore", "RunMedia"]


class MediaStore(Protocol):
    """What the orchestrator needs of the media server; `mediamesh.client.media.MediaClient` is one."""

    async def upload(
        self,
        data: bytes | AsyncIterable[bytes],
        *,
        media_type: MediaType.ValueType,
        place: MediaPlace,
        declared: MediaFacts | None = None,
        filename: str = "",
        timeout: float | None = None,
    ) -> MediaValue:
        """Store bytes and return their reference."""
        ...

    async def stat(self, url: str) -> StatResponse:
        """Return what is stored under an address."""
        ...


class RunMedia:
    """The media of one run: every object is stored under its workspace, flow, execution, node and pin."""

    def __init__(self, store: MediaStore, *, workspace_id: str, flow_id: str, execution_id: str) -> None:
        self._store = store
        self._run = (workspace_id, flow_id, execution_id)

    async def upload(
        self, node_id: str, pin: str, kind: MediaType.ValueType, data: bytes | AsyncIterable[bytes]
    ) -> value_pb2.Value:
        """Store bytes that a node gives on a pin, and return their reference."""
        workspace_id, flow_id, execution_id = self._run
        place = media_service_pb2.MediaPlace(
            workspace_id=workspace_id, flow_id=flow_id, execution_id=execution_id, node_id=node_id, pin_name=pin
        )
        return value_pb2.Value(media=await self._store.upload(data, media_type=kind, place=place))

    async def by_reference(self, node_id: str, pin: pin_pb2.Pin, value: value_pb2.Value) -> value_pb2.Value:
        """Return a value with its media, if any, in the store; all others as they are.

        Raises:
            MediaFetchFailed: the value is an address outside of the store.
        """
        if value.HasField("binary") and pin.type in MEDIA_TYPES:
            return await self.upload(node_id, pin.name, MEDIA_TYPES[pin.type], value.binary)
        match value.media.WhichOneof("source") if value.HasField("media") else None:
            case "inline":
                return await self.upload(node_id, pin.name, value.media.type, value.media.inline)
            case "url":
                raise MediaFetchFailed(
                    f"{value.media.url[:200]} lies outside of the media store, from where this server fetches nothing: "
                    "upload the media and give its reference."
                )
        return value

    async def known(self, value: value_pb2.Value) -> value_pb2.Value:
        """Return a value with what the store knows about its media, whatever its giver said.

        Raises:
            NotFound: the store has no such object.
        """
        if value.media.WhichOneof("source") != "ref":
            return value
        found = media_pb2.MediaValue()
        found.CopyFrom((await self._store.stat(value.media.ref.url)).media)
        return value_pb2.Value(media=found)
