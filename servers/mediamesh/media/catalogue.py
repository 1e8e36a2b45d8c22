"""Media objects in the store: what each carries with it, and which bytes a workspace has already."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING
from urllib.parse import quote

from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaReference, MediaType, MediaValue
from mediamesh.media.facts import from_text, to_text
from mediamesh.media.place import pointer_key
from mediamesh.wire.errors import AlreadyExists, NotFound, OutOfRange

if TYPE_CHECKING:
    from typing import BinaryIO

    from mediamesh.media.place import Addresses
    from mediamesh.media.store import ObjectStore, Stored

__all__ = ["Catalogue"]

# S3 allows 2 KB of metadata in all; the facts take up to 300 bytes of it.
_MOST_FILENAME_BYTES = 1024


class Catalogue:
    """The objects of a store as media values."""

    def __init__(self, store: ObjectStore, addresses: Addresses) -> None:
        self._store = store
        self._addresses = addresses

    async def add(
        self, key: str, body: BinaryIO, *, type_: MediaType.ValueType, facts: MediaFacts, sha256: bytes, filename: str
    ) -> None:
        """Store an object with what is known about it.

        Raises:
            AlreadyExists: the key is taken by another object.
            Unavailable: the store does not answer.
        """
        try:
            await self._store.put(
                key,
                body,
                sha256=sha256,
                content_type=facts.mime_type,
                metadata={
                    "type": MediaType.Name(type_),
                    "sha256": sha256.hex(),
                    "facts": to_text(facts),
                    "filename": quote(filename)[:_MOST_FILENAME_BYTES],
                },
            )
        except AlreadyExists:
            # The answer to a first try may have been lost, and this is what it stored.
            if (await self._store.head(key)).metadata.get("sha256") != sha256.hex():
                raise

    async def get(self, key: str) -> tuple[MediaValue, Stored]:
        """Return the object as a media value.

        An object that was written through a signed address carries no facts before its first use.

        Raises:
            NotFound: there is none.
            Unavailable: the store does not answer.
        """
        stored = await self._store.head(key)
        facts = from_text(stored.metadata.get("facts", ""))
        facts.mime_type = facts.mime_type or stored.content_type
        name = stored.metadata.get("type", "")
        known = name in MediaType.keys()  # noqa: SIM118 - an enum wrapper is no mapping
        value = self.value(
            key,
            type_=MediaType.Value(name) if known else _kind_of(facts.mime_type),
            facts=facts,
            sha256=stored.metadata.get("sha256", ""),
            size_bytes=stored.size_bytes,
        )
        return value, stored

    def value(
        self, key: str, *, type_: MediaType.ValueType, facts: MediaFacts, sha256: str, size_bytes: int
    ) -> MediaValue:
        """Return an object as a media value."""
        url = self._addresses.url(key)
        return MediaValue(type=type_, ref=MediaReference(url=url, size_bytes=size_bytes, metadata=facts, sha256=sha256))

    async def find(self, workspace_id: str, sha256: bytes) -> MediaValue | None:
        """Return the object that a workspace has with these bytes; None when it has none."""
        try:
            async with self._store.read(pointer_key(workspace_id, sha256.hex())) as pieces:
                key = b"".join([piece async for piece in pieces]).decode()
            return (await self.get(key))[0]
        except (NotFound, OutOfRange):
            return None

    async def settle(self, workspace_id: str, sha256: bytes, key: str) -> MediaValue | None:
        """Make the object under ``key`` the one with these bytes; return the one that is instead, or None.

        Another upload of the same bytes may have come first; then that one stays and this one goes.
        """
        if await self._point(workspace_id, sha256, key, replace=False):
            return None
        other = await self.find(workspace_id, sha256)
        if other is None:
            # The pointer was there and what it pointed to has gone.
            await self._point(workspace_id, sha256, key, replace=True)
        elif other.ref.url != self._addresses.url(key):
            await self._store.delete(key)
        return other

    async def forget(self, key: str) -> None:
        """Remove an object."""
        await self._store.delete(key)

    async def _point(self, workspace_id: str, sha256: bytes, key: str, *, replace: bool) -> bool:
        text = key.encode()
        try:
            await self._store.put(
                pointer_key(workspace_id, sha256.hex()),
                io.BytesIO(text),
                sha256=hashlib.sha256(text).digest(),
                content_type="text/plain",
                metadata={},
                replace=replace,
            )
        except AlreadyExists:
            return False
        return True


def _kind_of(mime_type: str) -> MediaType.ValueType:
    if mime_type == "application/pdf":
        return MediaType.MEDIA_TYPE_DOCUMENT
    name = f"MEDIA_TYPE_{mime_type.partition('/')[0].upper()}"
    return MediaType.Value(name) if name in MediaType.keys() else MediaType.MEDIA_TYPE_FILE  # noqa: SIM118
