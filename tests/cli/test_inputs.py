from __future__ import annotations

from typing import Any, cast

import pytest
from google.protobuf import json_format

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.flow.v1.flow_pb2 import Flow
from mediamesh.api.media.v1 import media_pb2
from mediamesh.cli import inputs
from mediamesh.wire.errors import InvalidRequest, UnsupportedMediaType

TYPES = {
    "number": pin_pb2.PIN_TYPE_NUMBER,
    "boolean": pin_pb2.PIN_TYPE_BOOLEAN,
    "json": pin_pb2.PIN_TYPE_JSON,
    "string": pin_pb2.PIN_TYPE_STRING,
    "image": pin_pb2.PIN_TYPE_IMAGE,
    "audio": pin_pb2.PIN_TYPE_AUDIO,
    "video": pin_pb2.PIN_TYPE_VIDEO,
    "document": pin_pb2.PIN_TYPE_DOCUMENT,
    "binary": pin_pb2.PIN_TYPE_BINARY,
}


def flow_to(kind: str) -> Flow:
    """Return a flow whose input ``a.out`` enters a pin of a type."""
    flow = Flow(id="f")
    node = flow.nodes.add(id="b")
    node.input_pins.add(name="in", type=TYPES[kind])
    edge = flow.edges.add()
    getattr(edge, "from").node_id, getattr(edge, "from").pin = "a", "out"
    edge.to.node_id, edge.to.pin = "b", "in"
    return flow


class FakeMedia:
    """Takes uploads and remembers them."""

    def __init__(self) -> None:
        self.content = b""

    async def upload(self, data, **about):
        self.content = b"".join([piece async for piece in data])
        return media_pb2.MediaValue(type=about["media_type"], url="s3://bucket/key")


async def value_of(kind: str, text: str, media=None):
    told: list[tuple[str, int, int]] = []
    values = await inputs.values(
        {"a.out": text},
        flow_to(kind),
        cast("Any", media or FakeMedia()),
        workspace_id="",
        progress=lambda *about: told.append(about),
    )
    return values["a.out"], told


def test_a_node_of_a_flow_within_the_flow_has_dots_in_its_id() -> None:
    assert inputs.read(["read.photo.file=a=b.jpg"]) == {"read.photo.file": "a=b.jpg"}


@pytest.mark.parametrize("argument", ["upload", "upload.file", "=x", ".file=x", "upload.=x", "a..c=x"])
def test_an_argument_of_another_form_is_refused(argument) -> None:
    with pytest.raises(InvalidRequest, match=r"node\.pin=VALUE"):
        inputs.read([argument])


def test_a_pin_is_given_once() -> None:
    assert inputs.read(["a.out=x=y"]) == {"a.out": "x=y"}
    with pytest.raises(InvalidRequest, match="twice"):
        inputs.read(["a.out=x", "a.out=y"])


async def test_a_text_becomes_what_its_pin_takes() -> None:
    assert (await value_of("number", "1.5"))[0].number == 1.5
    assert (await value_of("boolean", "true"))[0].boolean is True
    assert json_format.MessageToDict((await value_of("json", '{"a": [1]}'))[0].json) == {"a": [1]}
    assert (await value_of("string", "1.5"))[0].text == "1.5"


@pytest.mark.parametrize(("kind", "text"), [("number", "one"), ("boolean", "yes"), ("json", "{")])
async def test_a_text_of_another_type_is_named(kind, text) -> None:
    with pytest.raises(InvalidRequest, match=f"is not a {kind}"):
        await value_of(kind, text)


async def test_a_file_is_uploaded_in_pieces_with_progress(tmp_path) -> None:
    media, photo = FakeMedia(), tmp_path / "photo.jpg"
    photo.write_bytes(bytes(600_000))
    value, told = await value_of("image", str(photo), media)
    assert value.media.type == media_pb2.MEDIA_TYPE_IMAGE
    assert len(media.content) == 600_000
    assert [sent for _, sent, _ in told] == [262_144, 524_288, 600_000]
    assert {total for _, _, total in told} == {600_000}


async def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file"):
        await value_of("image", str(tmp_path / "none.jpg"))


@pytest.mark.parametrize("kind", ["image", "binary"])
@pytest.mark.parametrize("text", ["~nobody_such/x.jpg", "x" * 5000])
async def test_a_file_that_cannot_be_read_is_named(kind, text) -> None:
    with pytest.raises(InvalidRequest, match=f"{text} cannot be read: [A-Z]"):
        await value_of(kind, text)


async def test_a_file_that_cannot_be_read_to_its_end_is_named(tmp_path) -> None:
    class Removing(FakeMedia):
        async def upload(self, data, **about):
            photo.unlink()
            return await super().upload(data, **about)

    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"some bytes")
    with pytest.raises(InvalidRequest, match=r"photo\.jpg cannot be read: No such file"):
        await value_of("image", str(photo), Removing())


async def test_a_binary_is_what_is_in_a_file(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some bytes")
    assert (await value_of("binary", str(file)))[0].binary == b"some bytes"


@pytest.mark.parametrize("kind", ["image", "audio", "video", "document"])
async def test_a_file_goes_up_as_what_the_pin_that_it_enters_takes(tmp_path, kind) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some bytes")
    value, _ = await value_of(kind, str(file))
    assert value.media.type == media_pb2.MediaType.Value(f"MEDIA_TYPE_{kind.upper()}")


async def test_the_pin_itself_counts_where_the_mesh_gave_it_a_type(tmp_path) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(b"some bytes")
    flow = flow_to("json")  # as where a converter of its own took the place of the first edge
    flow.nodes.add(id="a").output_pins.add(name="out", type=pin_pb2.PIN_TYPE_AUDIO)
    values = await inputs.values(
        {"a.out": str(file)}, flow, cast("Any", FakeMedia()), workspace_id="", progress=lambda *_: None
    )
    assert values["a.out"].media.type == media_pb2.MEDIA_TYPE_AUDIO


async def test_what_lies_in_the_store_is_given_by_its_address() -> None:
    value, told = await value_of("video", "s3://media/default/f/e/n/p_1.mp4")
    assert value.media.type == media_pb2.MEDIA_TYPE_VIDEO
    assert value.media.ref.url == "s3://media/default/f/e/n/p_1.mp4"
    assert not told


async def test_a_file_that_is_refused_is_named_with_its_pin(tmp_path) -> None:
    class Refusing:
        async def upload(self, data, **about):
            raise UnsupportedMediaType.of_field("chunk.data", "the bytes are text/plain", found="text/plain")

    file = tmp_path / "song.mp3"
    file.write_bytes(b"la la la")
    with pytest.raises(UnsupportedMediaType) as raised:
        await value_of("audio", str(file), Refusing())
    assert raised.value.violations == [("a.out", "song.mp3: the bytes are text/plain")]
    assert raised.value.metadata["found"] == "text/plain"
