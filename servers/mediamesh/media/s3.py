"""Objects in an S3 bucket, through one client for the life of the process."""

from __future__ import annotations

import base64
import logging
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from mediamesh.media.store import PIECE_BYTES, Stored
from mediamesh.wire.errors import (
    AlreadyExists,
    ChecksumMismatch,
    MeshError,
    NotFound,
    OutOfRange,
    StreamInterrupted,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
    from typing import BinaryIO

    from types_aiobotocore_s3.client import S3Client

    from mediamesh.media.settings import Settings

__all__ = ["S3Store", "s3_store"]

_LOG = logging.getLogger(__name__)
_BY_CODE: Mapping[str, MeshError] = {
    "404": NotFound("There is no such object in the media store."),
    "NoSuchKey": NotFound("There is no such object in the media store."),
    "412": AlreadyExists("There is an object under this key in the media store."),
    "PreconditionFailed": AlreadyExists("There is an object under this key in the media store."),
    "ConditionalRequestConflict": AlreadyExists("An object is being put under this key in the media store."),
    "416": OutOfRange("There is no byte at the offset."),
    "InvalidRange": OutOfRange("There is no byte at the offset."),
    "BadDigest": ChecksumMismatch("The media store received other bytes than were sent."),
    "XAmzContentChecksumMismatch": ChecksumMismatch("The media store received other bytes than were sent."),
    "XAmzContentSHA256Mismatch": ChecksumMismatch("The media store received other bytes than were sent."),
}


@asynccontextmanager
async def s3_store(settings: Settings) -> AsyncGenerator[S3Store]:
    """Open the store; nothing is asked of it yet."""
    session = aioboto3.Session(
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        region_name=settings.region,
    )
    config = AioConfig(
        signature_version="s3v4",
        # A signature over the body, as a plain http:// address gets it, would hash all of it in the event loop, and
        # again with each attempt; the checksum of its own that every put carries proves the same.
        s3={"addressing_style": "path", "payload_signing_enabled": False},
        # Every put carries a SHA-256 of its own; trailers and checksums of ranges are where S3 servers differ.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=settings.store_connections,
        connect_timeout=2,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            session.client("s3", endpoint_url=settings.endpoint_url, config=config)
        )
        signing = client
        if settings.public_endpoint_url:
            signing = await stack.enter_async_context(
                session.client("s3", endpoint_url=settings.public_endpoint_url, config=config)
            )
        yield S3Store(client, signing, settings.bucket, create_bucket=settings.create_bucket)


class S3Store:
    """One bucket."""

    def __init__(self, client: S3Client, signing: S3Client, bucket: str, *, create_bucket: bool) -> None:
        self._client = client
        self._signing = signing
        self._bucket = bucket
        self._create_bucket = create_bucket

    async def check(self) -> None:
        """Ask for the bucket, and create it when it is missing and the settings say so.

        Raises:
            MeshError: the bucket cannot be used; the text says why.
        """
        try:
            with _translated():
                await self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            if not self._create_bucket:
                raise Unavailable(f"The media store has no bucket {self._bucket}.") from None
            with _translated():
                await self._client.create_bucket(Bucket=self._bucket)
            _LOG.info("created the bucket %s", self._bucket)

    async def put(
        self,
        key: str,
        body: BinaryIO,
        *,
        sha256: bytes,
        content_type: str,
        metadata: Mapping[str, str],
        replace: bool = False,
    ) -> None:
        """Store what ``body`` holds from its begin."""
        body.seek(0)
        condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
        with _translated():
            await self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                Metadata=dict(metadata),
                ChecksumSHA256=base64.b64encode(sha256).decode(),
                **condition,
            )

    async def head(self, key: str) -> Stored:
        """Tell what is stored."""
        with _translated():
            found = await self._client.head_object(Bucket=self._bucket, Key=key)
        return Stored(
            size_bytes=found["ContentLength"],
            content_type=found.get("ContentType", ""),
            metadata=found.get("Metadata", {}),
            time=found["LastModified"],
        )

    @asynccontextmanager
    async def read(self, key: str, *, offset: int = 0, limit: int = 0) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open the bytes."""
        span: dict[str, Any] = {}
        if offset or limit:
            span["Range"] = f"bytes={offset}-{offset + limit - 1 if limit else ''}"
        with _translated():
            found = await self._client.get_object(Bucket=self._bucket, Key=key, **span)
        async with found["Body"] as body:
            yield _pieces(body, offset)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        with _translated():
            await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def sign_get(self, key: str, *, seconds: int) -> str:
        """Return an address to read the object from."""
        return await self._signing.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=seconds
        )

    async def sign_put(self, key: str, *, content_type: str, seconds: int) -> str:
        """Return an address to write the object to."""
        return await self._signing.generate_presigned_url(
            "put_object",
            Params={"Bucket": self._bucket, "Key": key, "ContentType": content_type},
            ExpiresIn=seconds,
        )


async def _pieces(body: Any, offset: int) -> AsyncIterator[bytes]:
    try:
        while piece := await body.content.read(PIECE_BYTES):
            yield piece
            offset += len(piece)
    except (aiohttp.ClientError, TimeoutError) as error:
        _LOG.warning("the store broke off a read: %s", error or type(error).__name__)
        raise StreamInterrupted(
            f"The media store broke off; the download can go on at offset {offset}.", offset=offset
        ) from error


@contextmanager
def _translated() -> Generator[None]:
    """Spell what S3 says as an error of the tree."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if known := _BY_CODE.get(code):
            raise type(known)(known.text) from error
        _LOG.warning("the store answered %s", error)
        raise Unavailable(f"The media store answered {code}; its own log, or this server's, says more.") from error
    except (TimeoutError, BotoCoreError, aiohttp.ClientError, OSError) as error:
        _LOG.warning("the store does not answer: %s", error)
        raise Unavailable("The media store does not answer; try again in a moment.") from error
