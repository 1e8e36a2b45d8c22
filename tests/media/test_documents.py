from __future__ import annotations

import pytest

from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType
from mediamesh.client.media import MediaClient
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType
from tests.media.makers import document, locked_document

pytestmark = pytest.mark.slow

DOCUMENT = MediaType.MEDIA_TYPE_DOCUMENT


async def test_the_pages_of_a_document_are_counted(media, place) -> None:
    value = await media.upload(document(7), media_type=DOCUMENT, place=place)
    assert value.ref.metadata == MediaFacts(mime_type="application/pdf", pages=7)
    assert value.ref.url.endswith(".pdf")
    assert (await media.stat(value.ref.url)).media == value


async def test_declared_pages_must_agree(refused, media, place) -> None:
    await refused(
        document(2),
        InvalidRequest,
        "open.declared.pages: 3 is declared, and the bytes say 2",
        kind=DOCUMENT,
        declared=MediaFacts(pages=3),
    )
    await media.upload(
        document(2), media_type=DOCUMENT, place=place, declared=MediaFacts(mime_type="application/x-pdf")
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
async def test_a_truncated_document_is_refused(refused, share) -> None:
    data = document(20)
    error = await refused(data[: int(len(data) * share)], MediaDecodeFailed, "its end mark", kind=DOCUMENT)
    assert error.number == "E1013"


async def test_a_document_that_is_hollow_is_refused(refused) -> None:
    hollow = b"%PDF-1.7\n" + bytes(3000) + b"\nstartxref\n99\n%%EOF\n"
    await refused(hollow, MediaDecodeFailed, "is damaged or cut off", kind=DOCUMENT)


async def test_a_document_with_something_behind_it_is_refused(refused) -> None:
    await refused(document() + b"<?php system(1);", UnsupportedMediaType, "16 others follow", kind=DOCUMENT)
    await refused(b"%PDF-1.4\n<script>alert(1)</script>" + document(), UnsupportedMediaType, "a script", kind=DOCUMENT)


async def test_a_document_of_too_many_pages_is_refused(settings, serve, place) -> None:
    async with serve(settings.model_copy(update={"max_document_pages": 3})) as channel:
        with pytest.raises(MediaTooLarge, match="has 4 pages; the limit is 3 pages"):
            await MediaClient(channel).upload(document(4), media_type=DOCUMENT, place=place)


async def test_a_document_that_is_locked_says_so(refused) -> None:
    await refused(locked_document(), MediaDecodeFailed, "locked with a password; take that off first", kind=DOCUMENT)


async def test_a_picture_is_no_document(refused, make_picture) -> None:
    await refused(make_picture(), UnsupportedMediaType, "accepted for document are application/pdf", kind=DOCUMENT)
