from __future__ import annotations

import asyncio
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1 import media_pb2, media_service_pb2
from mediamesh.api.media.v1 import media_service_pb2_grpc as media_grpc
from mediamesh.client.channel import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.wire.errors import (
    ChecksumMismatch,
    DeadlineExceeded,
    InvalidFlow,
    InvalidRequest,
    MediaDecodeFailed,
    MediaTooLarge,
    MeshError,
    UnsupportedMediaType,
)
from tests.integration.conftest import CAT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
PLACE = media_service_pb2.MediaPlace(
    workspace_id="default", flow_id="f", execution_id="uploads", node_id="n", pin_name="p"
)


def png_bomb(side: int) -> bytes:
    """Return a PNG of a few kilobytes whose header promises side by side pixels."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


BAD_IMAGES = {
    "a text file named .jpg": (b"This is not a picture.\n" * 40, UnsupportedMediaType, "E1010"),
    "a truncated JPEG": (CAT.read_bytes()[:20_000], MediaDecodeFailed, "E1013"),
    "a PNG bomb": (png_bomb(50_000), MediaTooLarge, "E1011"),
    "an empty upload": (b"", InvalidRequest, ""),
    "a file beyond the limit": (CAT.read_bytes() + bytes(20 * 1024 * 1024), MediaTooLarge, "E1011"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
async def test_a_bad_upload_is_refused_by_name(door, name) -> None:
    content, kind, number = BAD_IMAGES[name]
    with pytest.raises(kind) as raised:
        await door.media.upload(content, media_type=media_pb2.MEDIA_TYPE_IMAGE, place=PLACE, filename="photo.jpg")
    assert raised.value.number == number
    assert raised.value.text


@pytest.mark.parametrize("name", [name for name, (content, _, _) in BAD_IMAGES.items() if len(content) < 2**20])
async def test_a_bad_picture_fails_the_run_with_the_same_error(door, classify, name) -> None:
    content, kind, _ = BAD_IMAGES[name]
    value = Value(media=media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, inline=content))
    with pytest.raises(kind) as raised:
        await _run(door, classify, {"upload.file": value})
    assert "upload.file" in raised.value.text
    assert "chunk" not in raised.value.text  # a field of a call that the caller knows nothing of


async def _run(door, flow, inputs) -> None:
    async for event in door.flows.run(flow, inputs, timeout=30):
        if event.HasField("execution_finished") and event.execution_finished.HasField("error"):
            raise MeshError.from_status(event.execution_finished.error)


async def test_a_wrong_checksum_is_refused(mesh) -> None:
    content = CAT.read_bytes()

    async def frames():
        open_ = media_service_pb2.UploadOpen(type=media_pb2.MEDIA_TYPE_IMAGE, place=PLACE)
        yield media_service_pb2.UploadRequest(open=open_)
        yield media_service_pb2.UploadRequest(chunk=media_service_pb2.UploadChunk(data=content))
        yield media_service_pb2.UploadRequest(finish=media_service_pb2.UploadFinish(sha256="0" * 64))

    async with connect(mesh.door) as channel:
        with pytest.raises(ChecksumMismatch):
            await media_grpc.MediaServiceStub(channel).Upload(frames())


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("classify.image", "classify.picture", "picture"),
        ("upload.file", "uplaod.file", "uplaod"),
        ("mediamesh.image-classifier", "mediamesh.nobody", "mediamesh.nobody"),
        ("apiVersion: v1beta1", "apiVersion: v9", "v9"),
        ("kind: Flow", "kind: [", ""),
    ],
)
async def test_a_flow_with_a_mistake_is_refused_with_file_and_line(door, classify, cat, old, new, word) -> None:
    assert old in classify.yaml
    broken = FlowSource(name="broken.mlab", yaml=classify.yaml.replace(old, new))
    with pytest.raises(InvalidFlow) as raised:
        await _run(door, broken, cat)
    assert any("broken.mlab" in text or ":" in field for field, text in raised.value.violations)
    assert any(word in text for _, text in raised.value.violations)


async def test_a_cycle_is_refused_with_its_path(door, classify, cat) -> None:
    cycle = """\
apiVersion: v1beta1
kind: Flow
meta: {id: cycle, name: Cycle}
graph:
  nodes:
    - {id: a, type: mediamesh.image-classifier}
    - {id: b, type: mediamesh.image-classifier}
  edges:
    - {from: a.classification, to: b.image}
    - {from: b.classification, to: a.image}
"""
    answer = await door.flows.validate(FlowSource(name="cycle.mlab", yaml=cycle))
    assert any(issue.code == 7 for issue in answer.issues)  # FLOW_ISSUE_CODE_CYCLE
    assert all(issue.line and issue.file == "cycle.mlab" for issue in answer.issues)
    with pytest.raises(InvalidFlow):
        await _run(door, FlowSource(name="cycle.mlab", yaml=cycle), {})


async def test_an_unknown_model_and_a_wrong_shape_are_refused_by_name(mesh) -> None:
    async with connect(mesh.door) as channel, InferenceClient(channel) as inference:
        with pytest.raises(MeshError, match="nobody"):
            await inference.infer("nobody", {"x": np.zeros((1, 2), np.float32)})
        with pytest.raises(MeshError, match="input"):
            wrong = np.zeros((1, 3, 10, 10), np.float32)
            await inference.infer("efficientnet_lite0_int8", {"input": wrong})


async def test_an_expired_deadline_ends_the_call(door, classify, cat) -> None:
    with pytest.raises(DeadlineExceeded):
        async for _ in door.flows.run(classify, cat, timeout=0.002):
            pass


async def test_nothing_bad_was_stored_and_the_mesh_still_works(door, classify, cat) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    async with asyncio.timeout(60):
        stored = await door.media.upload(
            picture.getvalue(), media_type=media_pb2.MEDIA_TYPE_IMAGE, place=PLACE, filename="red.png"
        )
        assert await door.media.download(stored.ref.url) == picture.getvalue()
        await _run(door, classify, cat)
