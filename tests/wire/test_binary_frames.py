from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.wire.binary_frames import pack, unpack
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.stream_json import event_apart, event_from_object
from tests.wire.stream_samples import CHUNKS, PIXEL


def test_a_binary_frame_is_laid_out_as_agreed() -> None:
    frame = pack({"ü": 1}, PIXEL)
    text = '{"ü":1}'.encode()
    assert frame == len(text).to_bytes(4, "big") + text + PIXEL
    assert unpack(frame) == ({"ü": 1}, PIXEL)


def test_an_event_with_media_survives_a_binary_frame() -> None:
    event = stream_pb2.StreamEvent(event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA, sequence=2)
    event.payload.data.CopyFrom(CHUNKS["media"])
    spelled, data = event_apart(event)
    assert data is not None
    spelled, data = unpack(pack(spelled, data))
    assert event_from_object(spelled, data=data) == event


def test_media_without_bytes_needs_no_binary_frame() -> None:
    event = stream_pb2.StreamEvent(event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA, sequence=2)
    event.payload.data.CopyFrom(CHUNKS["attachment"])
    event.payload.data.attachment.binary = b""
    spelled, data = event_apart(event)
    assert data is None
    assert event_from_object(json.loads(json.dumps(spelled))) == event


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()), st.binary(min_size=1))
def test_every_object_and_its_bytes_come_back(spelled, data) -> None:
    assert unpack(pack(spelled, data)) == (spelled, data)


@given(st.binary(max_size=40))
def test_any_bytes_are_taken_or_refused_in_words(frame) -> None:
    with contextlib.suppress(InvalidRequest):
        unpack(frame)


@pytest.mark.parametrize("frame", [b"", b"\0\0\0", b"\0\0\0\3{}", b"\xff\xff\xff\xff{}"])
def test_a_frame_shorter_than_it_says_is_refused(frame) -> None:
    with pytest.raises(InvalidRequest, match="length of its JSON"):
        unpack(frame)
