from __future__ import annotations

import hashlib
import io
import uuid

import pytest

from mediamesh.media.s3 import s3_store
from mediamesh.media.store import MemoryStore
from mediamesh.wire.errors import AlreadyExists, ChecksumMismatch, NotFound, OutOfRange

pytestmark = pytest.mark.slow


@pytest.fixture(params=["memory", "s3"])
async def store(request, settings):
    if request.param == "memory":
        yield MemoryStore()
        return
    async with s3_store(settings) as real:
        yield real


@pytest.fixture
def key() -> str:
    return f"test-{uuid.uuid4().hex}/a/b/c/d"


async def put(store, key, data, **options) -> None:
    digest = options.pop("sha256", hashlib.sha256(data).digest())
    await store.put(
        key, io.BytesIO(data), sha256=digest, content_type="image/png", **{"metadata": {"a": "1"}, **options}
    )


async def read(store, key, **span) -> bytes:
    async with store.read(key, **span) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_what_is_put_is_there(store, key) -> None:
    await put(store, key, b"0123456789")
    stored = await store.head(key)
    assert (stored.size_bytes, stored.content_type, stored.metadata) == (10, "image/png", {"a": "1"})
    assert await read(store, key) == b"0123456789"
    assert await read(store, key, offset=3) == b"3456789"
    assert await read(store, key, offset=3, limit=2) == b"34"
    assert await read(store, key, limit=99) == b"0123456789"


async def test_pieces_are_bounded(store, key) -> None:
    await put(store, key, bytes(1_000_000))
    async with store.read(key) as pieces:
        assert max([len(piece) async for piece in pieces]) <= 256 * 1024


async def test_a_body_is_stored_from_its_begin(store, key) -> None:
    body = io.BytesIO(b"abc")
    body.read()
    await store.put(key, body, sha256=hashlib.sha256(b"abc").digest(), content_type="text/plain", metadata={})
    assert await read(store, key) == b"abc"


async def test_a_body_is_read_once(store, key) -> None:
    class Read(io.BytesIO):
        size = 0

        def read(self, *arguments):
            piece = super().read(*arguments)
            self.size += len(piece)
            return piece

    data = bytes(100_000)
    body = Read(data)
    await store.put(
        key, body, sha256=hashlib.sha256(data).digest(), content_type="application/octet-stream", metadata={}
    )
    assert body.size == len(data)


async def test_an_object_is_replaced_only_on_request(store, key) -> None:
    await put(store, key, b"one")
    with pytest.raises(AlreadyExists):
        await put(store, key, b"two")
    assert await read(store, key) == b"one"
    await put(store, key, b"two", replace=True)
    assert await read(store, key) == b"two"


async def test_bytes_with_another_digest_are_not_stored(store, key) -> None:
    with pytest.raises(ChecksumMismatch):
        await put(store, key, b"abc", sha256=hashlib.sha256(b"abd").digest())
    with pytest.raises(NotFound):
        await store.head(key)


async def test_what_is_not_there_is_not_found(store, key) -> None:
    with pytest.raises(NotFound):
        await store.head(key)
    with pytest.raises(NotFound):
        await read(store, key)
    await store.delete(key)


async def test_there_is_no_byte_at_the_end(store, key) -> None:
    await put(store, key, b"abc")
    for offset in (3, 4, 1 << 40):
        with pytest.raises(OutOfRange):
            await read(store, key, offset=offset)


async def test_what_is_deleted_is_gone(store, key) -> None:
    await put(store, key, b"abc")
    await store.delete(key)
    with pytest.raises(NotFound):
        await read(store, key)
