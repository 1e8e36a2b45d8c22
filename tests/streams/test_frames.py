"""Frames of producers: the short way past protovalidate lets nothing through that it would refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_VIDEO
from mediamesh.api.stream.v1.chunk_pb2 import MEDIA_ENCODING_BINARY
from mediamesh.api.stream.v1.stream_pb2 import STREAM_EVENT_TYPE_STREAM_START
from mediamesh.api.stream.v1.stream_service_pb2 import PublishEvent, PublishRequest
from mediamesh.kit.boundary import checked
from mediamesh.streams.service import frame_of, is_plain
from mediamesh.wire.errors import InvalidRequest


def plain(request) -> bool:
    return is_plain(request, request.ByteSize())


def piece(text="hello", **changes) -> PublishRequest:
    request = PublishRequest()
    request.event.sequence, request.event.event_type = changes.pop("sequence", 2), changes.pop("event_type", 2)
    chunk = request.event.payload.data
    chunk.source, chunk.content.text = changes.pop("source", ""), text
    return request


def media(binary, media_type=MEDIA_TYPE_VIDEO, encoding=MEDIA_ENCODING_BINARY) -> PublishRequest:
    request = piece()
    data = request.event.payload.data.media
    data.media_type, data.encoding, data.binary = media_type, encoding, binary
    return request


@given(
    text=st.one_of(st.text(max_size=20), st.integers(0, 40_000).map(lambda size: "€" * size)),
    source=st.one_of(st.text(max_size=20), st.integers(0, 300).map(lambda size: "é" * size)),
    sequence=st.integers(0, 3),
    event_type=st.integers(0, 6),
    with_metadata=st.booleans(),
)
def test_what_is_plain_breaks_no_rule(text, source, sequence, event_type, with_metadata) -> None:
    request = piece(text, source=source, sequence=sequence, event_type=event_type)
    if with_metadata:
        request.event.payload.metadata.encoding = source
    if plain(request):
        checked(request)


@given(
    size=st.sampled_from([0, 1, 65_536, 1_048_500, 1_048_577]),
    media_type=st.integers(0, 12),
    encoding=st.integers(0, 6),
    extra=st.sampled_from(["", "caption", "metadata", "progress", "attachments", "text"]),
)
def test_media_that_is_plain_breaks_no_rule(size, media_type, encoding, extra) -> None:
    request = media(b"x" * size, media_type=media_type, encoding=encoding)
    data = request.event.payload.data.media
    match extra:
        case "caption":
            data.caption = "x" * 5000
        case "metadata":
            data.metadata.checksum = "x"
        case "progress":
            data.progress.percentage = 101
        case "attachments":
            data.attachments.add()
        case "text":
            data.text = "x"
    if plain(request):
        checked(request)


def test_a_piece_of_text_or_of_media_is_plain_and_other_frames_are_not() -> None:
    assert plain(piece())
    assert plain(media(b"x"))
    begin = PublishRequest(event=PublishEvent(sequence=1, event_type=STREAM_EVENT_TYPE_STREAM_START))
    assert plain(begin)
    checked(begin)
    assert not plain(PublishRequest())
    named = media(b"x")
    named.event.payload.data.media.caption = "x"
    assert not plain(named)
    assert not plain(piece(event_type=3))


@pytest.mark.parametrize("wrong", [{"sequence": 0}, {"event_type": 77}, {"text": "x" * 70_000}, {"source": "x" * 300}])
def test_a_frame_that_breaks_a_rule_is_refused(wrong) -> None:
    with pytest.raises(InvalidRequest):
        frame_of(piece(**wrong).SerializeToString())


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="PublishRequest"):
        frame_of(b"\xff\xff\xff")
