from __future__ import annotations

import io
import uuid
from contextlib import asynccontextmanager

import aioboto3
import pytest
from aiobotocore.config import AioConfig
from PIL import Image

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.media.v1.media_service_pb2_grpc import MediaServiceStub
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient
from mediamesh.kit.serve import serving
from mediamesh.media.app import app
from mediamesh.media.settings import Settings


def picture(kind="JPEG", size=(64, 48), *, mode="RGB", **options) -> bytes:
    """Return a picture with something in it."""
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def make_picture():
    return picture


@pytest.fixture(scope="session")
def settings(s3):
    return Settings(endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key, bucket=s3.bucket)


@pytest.fixture(scope="session")
def serve():
    """Return what serves settings for as long as a block lasts, and gives a channel."""

    @asynccontextmanager
    async def served(settings):
        async with app(settings) as part, serving(settings, part) as port, connect(f"127.0.0.1:{port}") as channel:
            yield channel

    return served


@pytest.fixture(scope="session")
async def channel(settings, serve):
    async with serve(settings) as channel:
        yield channel


@pytest.fixture(scope="session")
def media(channel):
    return MediaClient(channel)


@pytest.fixture(scope="session")
def stub(channel):
    return MediaServiceStub(channel)


@pytest.fixture
def place():
    """Return a place in a workspace of the test's own."""
    return pb.MediaPlace(
        workspace_id=f"test-{uuid.uuid4().hex[:12]}",
        flow_id="flow",
        execution_id="uploads",
        node_id="upload",
        pin_name="file",
    )


@pytest.fixture
def refused(media, bucket, place):
    """Return what uploads bytes, expects an error, and looks that nothing is stored."""

    async def upload(data, error, match, *, kind=MediaType.MEDIA_TYPE_IMAGE, **options):
        with pytest.raises(error, match=match) as raised:
            await media.upload(data, media_type=kind, place=place, **options)
        assert await bucket.is_empty(place)
        assert raised.value.violations
        return raised.value

    return upload


@pytest.fixture(scope="session")
async def bucket(s3):
    """Return the real bucket, as S3 shows it to everybody."""
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
        config=AioConfig(signature_version="s3v4", s3={"addressing_style": "path"}),
    ) as client:
        yield Bucket(client, s3.bucket)


class Bucket:
    def __init__(self, client, name) -> None:
        self.client, self.name = client, name

    async def keys(self, place) -> list[str]:
        page = await self.client.list_objects_v2(Bucket=self.name, Prefix=f"{place.workspace_id}/")
        return [entry["Key"] for entry in page.get("Contents", [])]

    async def objects(self, place) -> list[str]:
        return [key for key in await self.keys(place) if "/.sha256/" not in key]

    async def multiparts(self) -> list[str]:
        return [
            entry["Key"] for entry in (await self.client.list_multipart_uploads(Bucket=self.name)).get("Uploads", [])
        ]

    async def is_empty(self, place) -> bool:
        return not await self.keys(place) and not await self.multiparts()
