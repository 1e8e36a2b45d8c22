from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from PIL import Image

from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

pytestmark = pytest.mark.slow

IMAGE = MediaType.MEDIA_TYPE_IMAGE
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *, pixels=b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(pixels)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


async def test_a_text_named_jpg_is_no_picture(refused) -> None:
    error = await refused(b"Dear Sir or Madam,\n", UnsupportedMediaType, "text/plain", filename="photo.jpg")
    assert error.number == "E1010"
    assert error.metadata["accepted"] == "image/jpeg image/png image/webp image/gif"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"%PDF-1.7 " + bytes(500), "application/pdf"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(500), "audio/wav"),
        (b"\0\0\0\x18ftypheic" + bytes(500), "image/heic"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"BM" + bytes(500), "image/bmp"),
        (b"\x80\x81\x82" + bytes(2000), "application/octet-stream"),
    ],
)
async def test_what_the_bytes_are_is_named(refused, data, mime_type) -> None:
    await refused(data, UnsupportedMediaType, f"the bytes are {mime_type.replace('+', '.')}; accepted for image are")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
async def test_a_truncated_picture_is_refused(refused, make_picture, kind, share) -> None:
    data = make_picture(kind, (300, 200))
    error = await refused(data[: min(int(len(data) * share), len(data) - 1)], MediaDecodeFailed, "damaged or cut off")
    assert error.number == "E1013"


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_picture_without_its_last_byte_is_refused(refused, make_picture, kind) -> None:
    await refused(make_picture(kind)[:-1], MediaDecodeFailed, "damaged or cut off")


async def test_a_png_whose_checksum_is_wrong_is_refused(refused, make_picture) -> None:
    data = bytearray(make_picture("PNG"))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    await refused(bytes(data), MediaDecodeFailed, "cannot be decoded")


@pytest.mark.parametrize("size", [(50_000, 50_000), (0xFFFFFFF, 0xFFFFFFF), (64_000_001, 1)])
async def test_a_png_bomb_is_refused_by_its_header(refused, size) -> None:
    error = await refused(png(*size), MediaTooLarge, rf"has {size[0]} x {size[1]} pixels; the limit is 64000000 pixels")
    assert error.number == "E1011"
    assert error.metadata["limit"] == "64000000"


async def test_a_gif_and_a_webp_bomb_are_refused_by_their_headers(refused) -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\x00\x00"
    await refused(
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame + b";", MediaTooLarge, "65535 x 65535 pixels"
    )
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xfe\x3f\0" + b"\xfe\x3f\0"
    await refused(
        b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas, MediaTooLarge, "16383 x 16383 pixels"
    )


async def test_a_picture_of_no_size_is_refused(refused) -> None:
    await refused(png(0, 7), MediaDecodeFailed, "0 x 7 pixels")


async def test_an_animation_of_too_many_frames_is_refused(refused) -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * 2001 + b";"
    await refused(data, MediaTooLarge, "has 2001 frames; the limit is 2000 frames")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_an_animation_is_stored_and_all_its_frames_are_decoded(media, refused, place, kind) -> None:
    frames = [Image.new("RGB", (80, 60), (shade, 255 - shade, 90)) for shade in (0, 60, 120, 250)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=40)
    data = bytearray(out.getvalue())
    if kind == "PNG":
        broken = bytearray(data)
        broken[data.rindex(b"fdAT") + 12] ^= 0xFF
        await refused(bytes(broken), MediaDecodeFailed, "cannot be decoded")
    value = await media.upload(bytes(data), media_type=IMAGE, place=place)
    assert (value.ref.metadata.width, value.ref.metadata.height) == (80, 60)


@pytest.mark.parametrize("kind", FORMATS)
async def test_a_picture_with_something_behind_it_is_refused(refused, make_picture, kind) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("run.js", "alert(1)")
    await refused(make_picture(kind) + archive.getvalue(), UnsupportedMediaType, "also a ZIP archive")
    await refused(make_picture(kind) + b"<?php system(1);", UnsupportedMediaType, "16 others follow")


async def test_a_picture_that_is_also_a_page_or_a_pdf_is_refused(refused, make_picture) -> None:
    for hidden, what in ((b"<SCRIPT>alert(1)</SCRIPT>", "a script"), (b"%PDF-1.4", "a PDF"), (b"<html>", "a web page")):
        await refused(make_picture("JPEG", comment=hidden), UnsupportedMediaType, f"is also {what}")


async def test_an_archive_inside_of_a_picture_is_refused(refused, make_picture) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("run.js", "alert(1)")
    await refused(make_picture("GIF", comment=archive.getvalue()), UnsupportedMediaType, "also a ZIP archive")


async def test_what_cameras_put_behind_a_jpeg_may_stay(media, place, make_picture) -> None:
    gain_map, clip = make_picture("JPEG", (16, 12)), b"\0\0\0\x18ftypmp42" + bytes(40)
    for behind in (gain_map, clip, bytes(100), b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1600000000000SEFHxxxxSEFT"):
        data = make_picture("JPEG") + behind
        value = await media.upload(data, media_type=IMAGE, place=place)
        assert value.ref.size_bytes == len(data)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK"}),
        ("JPEG", {"subsampling": 0, "quality": 100}),
        ("PNG", {"mode": "RGBA"}),
        ("PNG", {"mode": "P"}),
        ("PNG", {"mode": "1"}),
        ("PNG", {"mode": "I;16"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"mode": "RGBA"}),
        ("GIF", {"mode": "P"}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (9, 2000), (641, 479)])
async def test_pictures_of_all_makes_are_taken(media, place, make_picture, kind, options, size) -> None:
    options = dict(options)
    mode = options.pop("mode", "RGB")
    data = make_picture(kind, size, mode=mode if mode != "I;16" else "RGB", **options)
    if mode == "I;16":
        out = io.BytesIO()
        Image.linear_gradient("L").convert("I;16").resize(size).save(out, "PNG")
        data = out.getvalue()
    value = await media.upload(data, media_type=IMAGE, place=place)
    assert (value.ref.metadata.width, value.ref.metadata.height) == size


async def test_declared_facts_that_differ_are_named_beside_the_true_ones(refused, make_picture) -> None:
    data = make_picture("PNG", (64, 48))
    error = await refused(
        data,
        UnsupportedMediaType,
        "open.declared.mime_type: 'image/jpeg' is declared, and the bytes say 'image/png'",
        declared=MediaFacts(mime_type="image/jpeg", width=64, height=49),
    )
    assert error.number == "E1010"
    assert [field for field, _ in error.violations] == ["open.declared.mime_type", "open.declared.height"]
    await refused(
        data,
        InvalidRequest,
        "open.declared.sample_rate_hz: 44100 is declared, and the bytes say 0",
        declared=MediaFacts(sample_rate_hz=44100),
    )


async def test_a_declared_type_off_the_list_is_refused_at_once(refused, make_picture) -> None:
    await refused(
        make_picture(),
        UnsupportedMediaType,
        "open.declared.mime_type: is image/bmp",
        declared=MediaFacts(mime_type="image/bmp"),
    )


async def test_declared_facts_that_agree_are_fine(media, place, make_picture) -> None:
    await media.upload(
        make_picture(), media_type=IMAGE, place=place, declared=MediaFacts(mime_type="Image/JPG", width=64, height=48)
    )


_BEGINS = strategies.sampled_from(
    [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\0\0\0WEBPVP8 "]
)


@pytest.mark.stack
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begin=_BEGINS, rest=strategies.binary(min_size=1, max_size=4000))
async def test_garbage_is_refused_with_a_code_and_never_stored(refused, begin, rest) -> None:
    error = await refused(begin + rest, InvalidRequest, "chunk.data: ")
    assert error.number in {"E1010", "E1011", "E1013"}


@pytest.mark.stack
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=strategies.sampled_from(FORMATS),
    position=strategies.floats(0, 1),
    patch=strategies.binary(min_size=1, max_size=8),
)
async def test_a_damaged_picture_is_stored_or_refused_and_nothing_else(
    media, place, make_picture, kind, position, patch
) -> None:
    data = bytearray(make_picture(kind))
    at = int(position * (len(data) - len(patch)))
    data[at : at + len(patch)] = patch
    try:
        await media.upload(bytes(data), media_type=IMAGE, place=place)
    except InvalidRequest as error:
        assert error.number in {"E1010", "E1011", "E1013"}  # noqa: PT017 - it may be stored as well
