"""Hands media out: its bytes, what is known about it, and signed addresses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mediamesh.api.media.v1.media_service_pb2 import (
    DownloadResponse,
    PresignMethod,
    PresignResponse,
    StatResponse,
)
from mediamesh.media.facts import canonical
from mediamesh.media.place import object_key
from mediamesh.wire.errors import InvalidRequest, OutOfRange, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.api.media.v1.media_service_pb2 import PresignRequest
    from mediamesh.media.catalogue import Catalogue
    from mediamesh.media.limits import Kinds
    from mediamesh.media.place import Addresses
    from mediamesh.media.store import ObjectStore, Signer

__all__ = ["Downloads", "Links"]

_LONGEST_WAIT_SECONDS = 10.0
# S3 takes no larger object, and servers of its protocol need take no larger number.
_MOST_OBJECT_BYTES = 5 << 40
_DEFAULT_LIFETIME = timedelta(minutes=15)


class Downloads:
    """Reads objects, so many at once; a slow reader holds its place and no memory to speak of."""

    def __init__(self, store: ObjectStore, catalogue: Catalogue, addresses: Addresses, *, at_once: int) -> None:
        self._store = store
        self._catalogue = catalogue
        self._addresses = addresses
        self._places = asyncio.Semaphore(at_once)
        self._at_once = at_once

    async def stat(self, url: str) -> StatResponse:
        """Tell what is stored under an address.

        Raises:
            NotFound: nothing is.
        """
        media, stored = await self._catalogue.get(self._addresses.key(url))
        response = StatResponse(media=media)
        response.create_time.FromDatetime(stored.time.astimezone(UTC).replace(tzinfo=None))
        return response

    async def read(self, url: str, *, offset: int, limit: int) -> AsyncGenerator[DownloadResponse]:
        """Yield the bytes from ``offset`` on, at most ``limit`` of them if it is not 0.

        Raises:
            NotFound: there is no such object.
            OutOfRange: the offset lies beyond its end; at its end, nothing follows.
            Overloaded: too many downloads are going on.
        """
        key = self._addresses.key(url)
        await self._enter()
        try:
            first, most = min(offset, _MOST_OBJECT_BYTES), min(limit, _MOST_OBJECT_BYTES)
            async with self._store.read(key, offset=first, limit=most) as pieces:
                async for piece in pieces:
                    yield DownloadResponse(offset=offset, data=piece)
                    offset += len(piece)
        except OutOfRange:
            size = (await self._store.head(key)).size_bytes
            if offset > size:
                raise OutOfRange(
                    f"offset: is {offset}, and the object has {size} bytes.", field="offset", limit_bytes=size
                ) from None
        finally:
            self._places.release()

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded.retry(
                f"{self._at_once} downloads are going on, the limit of this server.",
                after_seconds=1.0,
                limit=self._at_once,
            ) from None


class Links:
    """Signs addresses at which bytes pass between a client and the store without this server."""

    def __init__(self, signer: Signer, catalogue: Catalogue, addresses: Addresses, kinds: Kinds) -> None:
        self._signer = signer
        self._catalogue = catalogue
        self._addresses = addresses
        self._kinds = kinds

    async def sign(self, request: PresignRequest) -> PresignResponse:
        """Return a signed address.

        What is written through one has not been looked at. It has no facts but the media type that its writer names, so
        no pin for media takes it (`mediamesh.wire.pins`).

        Raises:
            NotFound: the object to read does not exist.
            InvalidRequest: method and target do not belong together.
            UnsupportedMediaType: what shall be written is not accepted.
        """
        lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else _DEFAULT_LIFETIME
        seconds = int(lifetime.total_seconds())
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        if request.method == PresignMethod.PRESIGN_METHOD_GET:
            key = await self._to_read(request)
            http_url = await self._signer.sign_get(key, seconds=seconds)
        else:
            key, mime_type = self._to_write(request)
            http_url = await self._signer.sign_put(key, content_type=mime_type, seconds=seconds)
        response = PresignResponse(http_url=http_url, url=self._addresses.url(key))
        response.expire_time.FromDatetime(expires.replace(tzinfo=None))
        return response

    async def _to_read(self, request: PresignRequest) -> str:
        if request.WhichOneof("target") != "url":
            raise InvalidRequest.of_field("url", "is what PRESIGN_METHOD_GET needs; place is for writing")
        if request.mime_type:
            raise InvalidRequest.of_field("mime_type", "belongs to place only")
        key = self._addresses.key(request.url)
        await self._catalogue.get(key)
        return key

    def _to_write(self, request: PresignRequest) -> tuple[str, str]:
        if request.WhichOneof("target") != "place":
            raise InvalidRequest.of_field("place", "is what PRESIGN_METHOD_PUT needs; objects are not overwritten")
        self._addresses.admit(request.place.workspace_id, field="place.workspace_id")
        mime_type = canonical(request.mime_type)
        self._kinds.of_mime_type(mime_type, field="mime_type")
        return object_key(request.place, mime_type), mime_type
