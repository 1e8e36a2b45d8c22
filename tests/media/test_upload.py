from __future__ import annotations

import asyncio
import hashlib
import re

import google_crc32c
import pytest

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType
from mediamesh.client.media import MediaClient
from mediamesh.wire.errors import (
    ChecksumMismatch,
    InvalidRequest,
    MediaTooLarge,
    MultimodalNotSupported,
    NotImplementedByServer,
    StreamTimeout,
    UnsupportedMediaType,
)

pytestmark = pytest.mark.slow

IMAGE = MediaType.MEDIA_TYPE_IMAGE


def opening(place, **fields) -> pb.UploadRequest:
    return pb.UploadRequest(open=pb.UploadOpen(**{"type": IMAGE, "place": place, **fields}))


def chunk(data, offset=0, **fields) -> pb.UploadRequest:
    return pb.UploadRequest(chunk=pb.UploadChunk(offset=offset, data=data, **fields))


def finish(data) -> pb.UploadRequest:
    return pb.UploadRequest(finish=pb.UploadFinish(sha256=hashlib.sha256(data).hexdigest()))


async def send(stub, *frames):
    async def all_frames():
        for frame in frames:
            yield frame

    return await stub.Upload(all_frames())


@pytest.mark.parametrize(
    ("kind", "mime_type", "extension"),
    [
        ("JPEG", "image/jpeg", "jpg"),
        ("PNG", "image/png", "png"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
    ],
)
async def test_a_picture_is_stored_with_the_facts_that_its_bytes_tell(
    media, bucket, place, make_picture, kind, mime_type, extension
) -> None:
    data = make_picture(kind, (320, 200))
    value = await media.upload(data, media_type=IMAGE, place=place, filename="Grüße.jpg")
    assert value.type == IMAGE
    assert value.ref.metadata == MediaFacts(mime_type=mime_type, width=320, height=200)
    assert value.ref.size_bytes == len(data)
    assert value.ref.sha256 == hashlib.sha256(data).hexdigest()
    form = rf"s3://media/{place.workspace_id}/flow/uploads/upload/file_\d{{8}}T\d{{12}}Z\.{extension}"
    assert re.fullmatch(form, value.ref.url)
    assert await media.download(value.ref.url) == data
    assert len(await bucket.objects(place)) == 1


async def test_pieces_of_any_size_become_one_object(media, place, make_picture) -> None:
    data = make_picture("PNG", (900, 700), mode="RGBA")

    async def pieces():
        at, length = 0, 1
        while at < len(data):
            yield data[at : at + length]
            at, length = at + length, length * 3

    value = await media.upload(pieces(), media_type=IMAGE, place=place)
    assert await media.download(value.ref.url) == data


async def test_the_same_bytes_are_stored_once_in_a_workspace(media, bucket, place, make_picture) -> None:
    data = make_picture()
    first = await media.upload(data, media_type=IMAGE, place=place)
    elsewhere = pb.MediaPlace()
    elsewhere.CopyFrom(place)
    elsewhere.node_id = "other"
    assert await media.upload(data, media_type=IMAGE, place=elsewhere) == first
    assert len(await bucket.objects(place)) == 1


async def test_the_same_bytes_uploaded_at_once_are_stored_once(media, bucket, place, make_picture) -> None:
    data = make_picture()
    values = await asyncio.gather(*(media.upload(data, media_type=IMAGE, place=place) for _ in range(8)))
    assert len({value.ref.url for value in values}) == 1
    assert await bucket.objects(place) == [values[0].ref.url.removeprefix("s3://media/")]


async def test_bytes_whose_object_has_gone_are_stored_anew(media, bucket, place, make_picture) -> None:
    data = make_picture()
    first = await media.upload(data, media_type=IMAGE, place=place)
    await bucket.client.delete_object(Bucket="media", Key=first.ref.url.removeprefix("s3://media/"))
    second = await media.upload(data, media_type=IMAGE, place=place)
    assert second.ref.url != first.ref.url
    assert await media.upload(data, media_type=IMAGE, place=place) == second


async def test_declared_facts_of_known_bytes_are_compared_too(media, place, make_picture) -> None:
    data = make_picture()
    await media.upload(data, media_type=IMAGE, place=place)
    with pytest.raises(InvalidRequest, match=r"declared.width: 65 is declared, and the bytes say 64"):
        await media.upload(data, media_type=IMAGE, place=place, declared=MediaFacts(width=65))


async def test_a_wrong_offset_names_the_right_one(stub, bucket, place, make_picture) -> None:
    data = make_picture()
    with pytest.raises(InvalidRequest, match=r"chunk.offset: is 99, and must be 100") as raised:
        await send(stub, opening(place), chunk(data[:100]), chunk(data[100:], 99), finish(data))
    assert [field for field, _ in raised.value.violations] == ["chunk.offset"]
    assert await bucket.is_empty(place)


async def test_a_damaged_chunk_is_seen_by_its_crc32c(stub, bucket, place, make_picture) -> None:
    data = make_picture()
    good = google_crc32c.value(data)
    with pytest.raises(ChecksumMismatch, match=r"chunk.crc32c") as raised:
        await send(stub, opening(place), chunk(data, crc32c=good ^ 1), finish(data))
    assert raised.value.metadata["field"] == "chunk.crc32c"
    assert await bucket.is_empty(place)
    await send(stub, opening(place), chunk(data, crc32c=good), finish(data))


async def test_a_wrong_sha256_stores_nothing(stub, bucket, place, make_picture) -> None:
    data = make_picture()
    with pytest.raises(ChecksumMismatch, match=r"finish.sha256") as raised:
        await send(stub, opening(place), chunk(data), finish(data + b"x"))
    assert [field for field, _ in raised.value.violations] == ["finish.sha256"]
    assert await bucket.is_empty(place)


@pytest.mark.parametrize(
    ("frames", "field", "text"),
    [
        ("", "open", "no frame came"),
        ("c", "open", "chunk came"),
        ("f", "open", "finish came"),
        ("oo", "open", "only the first"),
        ("oco", "open", "only the first"),
        ("oc", "finish", "is missing"),
        ("o", "finish", "is missing"),
        ("of", "chunk.data", "the upload is empty"),
        ("ocfc", "chunk", "came after finish"),
        ("ocff", "finish", "came after finish"),
    ],
)
async def test_a_frame_out_of_place_is_named(stub, bucket, place, make_picture, frames, field, text) -> None:
    data = make_picture()
    of = {"o": opening(place), "c": chunk(data), "f": finish(b"" if frames == "of" else data)}
    with pytest.raises(InvalidRequest, match=text) as raised:
        await send(stub, *(of[letter] for letter in frames))
    assert [name for name, _ in raised.value.violations] == [field]
    assert await bucket.is_empty(place)


async def test_one_byte_more_than_the_limit_is_refused(media, bucket, place, make_picture) -> None:
    limit = 20 * 1024 * 1024
    data = make_picture("PNG").ljust(limit + 1, b"\0")

    async def unannounced():
        yield data

    with pytest.raises(
        MediaTooLarge, match=r"open.size_bytes: is 20971521 bytes; .* 20971520 bytes \(20 MiB\)"
    ) as raised:
        await media.upload(data, media_type=IMAGE, place=place)
    assert raised.value.number == "E1011"
    with pytest.raises(MediaTooLarge, match=r"chunk.data: the upload has reached .* 20971520 bytes \(20 MiB\)"):
        await media.upload(unannounced(), media_type=IMAGE, place=place)
    assert await bucket.is_empty(place)


async def test_an_endless_upload_is_stopped_at_the_limit(settings, serve, place, make_picture) -> None:
    sent = 0

    async def endless():
        nonlocal sent
        yield make_picture("PNG")
        while True:
            sent += 65536
            yield bytes(65536)

    async with serve(settings.model_copy(update={"max_image_bytes": 1_000_000})) as channel:
        with pytest.raises(MediaTooLarge):
            await MediaClient(channel).upload(endless(), media_type=IMAGE, place=place)
    assert sent < 30_000_000


async def test_more_or_less_than_announced_is_refused(stub, bucket, place, make_picture) -> None:
    data = make_picture()
    for announced in (len(data) - 1, len(data) + 1):
        with pytest.raises(
            InvalidRequest, match=rf"open.size_bytes: announced {announced} bytes, and {len(data)} came"
        ):
            await send(stub, opening(place, size_bytes=announced), chunk(data), finish(data))
    assert await bucket.is_empty(place)


async def test_a_kind_that_is_not_accepted_is_told_which_are(stub, place) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"open.type: file is not accepted .*; accepted is image") as raised:
        await send(stub, opening(place, type=MediaType.MEDIA_TYPE_FILE))
    assert raised.value.number == "E1010"
    for kind in ("image (image/jpeg, ", "audio (audio/wav, ", "video (video/mp4, ", "document (application/pdf)"):
        assert kind in raised.value.text


async def test_media_that_is_switched_off_is_said_to_be(settings, serve, place, make_picture) -> None:
    async with serve(settings.model_copy(update={"enable_multimodal": False})) as channel:
        with pytest.raises(MultimodalNotSupported, match=r"switched off \(ENABLE_MULTIMODAL\)") as raised:
            await MediaClient(channel).upload(make_picture(), media_type=IMAGE, place=place)
    assert raised.value.number == "E4011"


async def test_only_the_kinds_that_are_allowed_are_taken(settings, serve, place, make_picture) -> None:
    update = {"allowed_types": ("image",), "max_file_bytes": 1000}
    async with serve(settings.model_copy(update=update)) as channel:
        with pytest.raises(UnsupportedMediaType, match=r"audio is not accepted .* accepted is image \(image/jpeg, "):
            await MediaClient(channel).upload(b"RIFF", media_type=MediaType.MEDIA_TYPE_AUDIO, place=place)
        with pytest.raises(MediaTooLarge, match="the limit for image is 1000 bytes"):
            await MediaClient(channel).upload(make_picture("PNG", (500, 400)), media_type=IMAGE, place=place)


async def test_an_upload_cannot_be_continued_yet(stub, place) -> None:
    with pytest.raises(NotImplementedByServer, match=r"open.upload_id"):
        await send(stub, opening(place, upload_id="abc"))


async def test_an_upload_that_pauses_too_long_ends(settings, serve, bucket, place, make_picture) -> None:
    async def pausing():
        yield make_picture("PNG", (900, 700), mode="RGBA")[:300_000]
        await asyncio.Event().wait()

    async with serve(settings.model_copy(update={"idle_seconds": 0.2})) as channel:
        with pytest.raises(StreamTimeout, match=r"0\.2 s") as raised:
            await MediaClient(channel).upload(pausing(), media_type=IMAGE, place=place)
    assert raised.value.number == "E2011"
    assert await bucket.is_empty(place)


async def test_an_upload_that_takes_too_long_ends(settings, serve, bucket, place, make_picture) -> None:
    async def dripping():
        yield make_picture("PNG")
        while True:
            await asyncio.sleep(0.02)
            yield bytes(300_000)

    async with serve(settings.model_copy(update={"upload_seconds": 0.2})) as channel:
        with pytest.raises(StreamTimeout, match=r"longer than 0.2 s"):
            await MediaClient(channel).upload(dripping(), media_type=IMAGE, place=place)
    assert await bucket.is_empty(place)


async def test_an_error_of_the_source_reaches_the_caller(media, bucket, place, make_picture) -> None:
    async def failing():
        yield make_picture()
        raise FileNotFoundError("the disk has gone")

    with pytest.raises(FileNotFoundError, match="the disk has gone"):
        await media.upload(failing(), media_type=IMAGE, place=place)
    assert await bucket.is_empty(place)


async def test_a_place_that_is_no_place_is_refused(stub, place) -> None:
    place.node_id = "../../etc"
    with pytest.raises(InvalidRequest) as raised:
        await send(stub, opening(place))
    assert [field for field, _ in raised.value.violations] == ["open.place.node_id"]
