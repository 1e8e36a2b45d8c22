from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest
from google.protobuf.duration_pb2 import Duration

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType
from mediamesh.client.media import MediaClient
from mediamesh.wire.errors import InvalidRequest, NotFound, OutOfRange, Overloaded, PermissionDenied

pytestmark = pytest.mark.slow

IMAGE = MediaType.MEDIA_TYPE_IMAGE
GET, PUT = pb.PresignMethod.PRESIGN_METHOD_GET, pb.PresignMethod.PRESIGN_METHOD_PUT


@pytest.fixture(scope="session")
def large(make_picture):
    """Return a picture of about 3 MB."""
    return make_picture("PNG", (1000, 1000), compress_level=0)


@pytest.fixture
async def url(media, place, large):
    return (await media.upload(large, media_type=IMAGE, place=place)).ref.url


async def test_an_object_comes_in_pieces_whose_offsets_follow_each_other(stub, url, large) -> None:
    got = b""
    async for response in stub.Download(pb.DownloadRequest(url=url)):
        assert response.offset == len(got)
        assert 0 < len(response.data) <= 256 * 1024
        got += response.data
    assert got == large


async def test_offset_and_limit_cut_a_part_out(media, url, large) -> None:
    size = len(large)
    for offset, limit in (
        (0, 1),
        (1000, 500_000),
        (size - 3, 0),
        (size - 3, 99),
        (0, size),
        (5, 0),
        (size, 0),
        (7, 1 << 63),
    ):
        expected = large[offset : offset + limit if limit else None]
        assert await media.download(url, offset=offset, limit=limit) == expected


async def test_an_offset_beyond_the_end_is_told_the_end(media, url, large) -> None:
    for offset in (len(large) + 1, 1 << 63):
        with pytest.raises(OutOfRange, match=f"offset: is {offset}, and the object has {len(large)} bytes"):
            await media.download(url, offset=offset)


async def test_what_is_not_there_is_not_found(media, place) -> None:
    url = f"s3://media/{place.workspace_id}/flow/uploads/upload/file_1.jpg"
    for call in (media.download(url), media.stat(url), media.presign(pb.PresignRequest(method=GET, url=url))):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("s3://others/w/f/e/n/p_1.jpg", PermissionDenied),
        ("s3://media/w/.sha256/" + "0" * 64, InvalidRequest),
        ("s3://media/w/f/e/n/../../x", InvalidRequest),
        ("s3://media/w/f/e/n/", InvalidRequest),
        ("s3://media//etc/passwd", InvalidRequest),
    ],
)
async def test_addresses_that_are_not_ours_are_refused(media, url, error) -> None:
    for call in (media.download(url), media.stat(url), media.presign(pb.PresignRequest(method=GET, url=url))):
        with pytest.raises(error, match="url: "):
            await call


async def test_a_workspace_that_is_not_served_is_refused(settings, serve, url, place, make_picture) -> None:
    async with serve(settings.model_copy(update={"workspaces": ("somebody",)})) as channel:
        media = MediaClient(channel)
        for call in (
            media.stat(url),
            media.upload(make_picture(), media_type=IMAGE, place=place),
            media.presign(pb.PresignRequest(method=PUT, place=place, mime_type="image/png")),
        ):
            with pytest.raises(PermissionDenied, match=f"does not serve the workspace {place.workspace_id}"):
                await call


async def test_stat_needs_nothing_but_the_object(media, url, large, settings, serve) -> None:
    async with serve(settings) as channel:
        response = await MediaClient(channel).stat(url)
    assert response == await media.stat(url)
    assert response.media.type == IMAGE
    assert response.media.ref.size_bytes == len(large)
    assert response.media.ref.metadata == MediaFacts(mime_type="image/png", width=1000, height=1000)
    assert len(response.media.ref.sha256) == 64
    assert response.create_time.seconds > 0


def fetch(request: urllib.request.Request | str):
    with urllib.request.urlopen(request) as response:
        return response.read()


async def test_a_signed_address_reads_without_the_mesh(media, url, large) -> None:
    signed = await media.presign(pb.PresignRequest(method=GET, url=url, lifetime=Duration(seconds=60)))
    assert signed.url == url
    assert await asyncio.to_thread(fetch, signed.http_url) == large
    with pytest.raises(urllib.error.HTTPError) as raised:
        await asyncio.to_thread(fetch, signed.http_url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
    raised.value.close()
    assert raised.value.code == 403


async def test_a_signed_address_writes_one_content_type(media, place, make_picture) -> None:
    data = make_picture("PNG")
    signed = await media.presign(pb.PresignRequest(method=PUT, place=place, mime_type="image/png"))
    for mime_type, ok in (("text/html", False), ("image/png", True)):
        request = urllib.request.Request(signed.http_url, data, {"Content-Type": mime_type}, method="PUT")
        if ok:
            await asyncio.to_thread(fetch, request)
        else:
            with pytest.raises(urllib.error.HTTPError) as raised:
                await asyncio.to_thread(fetch, request)
            raised.value.close()
    known = (await media.stat(signed.url)).media
    assert known.type == IMAGE
    assert known.ref.metadata == MediaFacts(mime_type="image/png")
    assert await media.download(signed.url) == data


async def test_what_cannot_be_signed_is_told_why(media, place, url) -> None:
    for request, field in (
        (pb.PresignRequest(method=GET, place=place), "url"),
        (pb.PresignRequest(method=PUT, url=url), "place"),
        (pb.PresignRequest(method=GET, url=url, mime_type="image/png"), "mime_type"),
        (pb.PresignRequest(method=PUT, place=place), "mime_type"),
        (pb.PresignRequest(method=PUT, place=place, mime_type="text/html"), "mime_type"),
        (
            pb.PresignRequest(method=PUT, place=place, mime_type="image/png", lifetime=Duration(seconds=3601)),
            "lifetime",
        ),
    ):
        with pytest.raises(InvalidRequest) as raised:
            await media.presign(request)
        assert [name for name, _ in raised.value.violations] == [field]


@pytest.mark.stack
async def test_a_reader_that_leaves_gives_its_place_back(settings, serve, place, make_picture, monkeypatch) -> None:
    monkeypatch.setattr("mediamesh.media.download._LONGEST_WAIT_SECONDS", 0.3)
    large = make_picture("PNG", (2500, 2500), compress_level=0)  # more than the connection holds in its buffers
    async with serve(settings.model_copy(update={"max_downloads": 1})) as channel:
        media = MediaClient(channel)
        url = (await media.upload(large, media_type=IMAGE, place=place)).ref.url
        slow = media.read(url)
        got = await anext(slow)
        with pytest.raises(Overloaded, match="1 downloads are going on"):
            await media.download(url)
        monkeypatch.undo()  # a reader that has left is heard of in time
        # The slow one goes on from where it stood, and misses nothing.
        assert got + b"".join([piece async for piece in slow]) == large
        assert await media.download(url) == large
        leaving = media.read(url)
        await anext(leaving)
        await leaving.aclose()
        assert await media.download(url) == large
