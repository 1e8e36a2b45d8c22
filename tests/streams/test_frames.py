"""Frames of producers: the short way past protovalidate lets nothing through that it would refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.stream.v1.stream_service_pb2 import PublishRequest
from mediamesh.kit.boundary import checked
from mediamesh.streams.service import frame_of, is_plain
from mediamesh.wire.errors import InvalidRequest


def piece(text="hello", **changes) -> PublishRequest:
    request = PublishRequest()
    request.event.sequence, request.event.event_type = changes.pop("sequence", 2), changes.pop("event_type", 2)
    chunk = request.event.payload.data
    chunk.source, chunk.content.text = changes.pop("source", ""), text
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
    if is_plain(request):
        checked(request)


def test_a_piece_of_text_is_plain_and_other_frames_are_not() -> None:
    assert is_plain(piece())
    assert not is_plain(PublishRequest())
    media = piece()
    media.event.payload.data.media.caption = "x"
    assert not is_plain(media)
    assert not is_plain(piece(event_type=3))


@pytest.mark.parametrize("wrong", [{"sequence": 0}, {"event_type": 77}, {"text": "x" * 70_000}, {"source": "x" * 300}])
def test_a_frame_that_breaks_a_rule_is_refused(wrong) -> None:
    with pytest.raises(InvalidRequest):
        frame_of(piece(**wrong).SerializeToString())


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="PublishRequest"):
        frame_of(b"\xff\xff\xff")
