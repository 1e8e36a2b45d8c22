from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.edge.spelled import Spelled
from mediamesh.wire.stream_json import event_from_object
from mediamesh.wire.strict_json import loads


def event(text, nanos):
    made = stream_pb2.StreamEvent(
        event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA,
        stream_id="s",
        sequence=2,
        timestamp=Timestamp(seconds=1_700_000_000, nanos=nanos),
    )
    made.payload.data.content.text = text
    return made


def test_an_event_is_spelled_once() -> None:
    spelled = Spelled()
    assert spelled.frame(event("a", 1000), is_text=False) is spelled.frame(event("a", 1000), is_text=False)


def test_an_event_in_the_place_of_one_that_the_store_has_lost_is_not_taken_for_it() -> None:
    spelled = Spelled()
    for one in (event("lost", 1000), event("in its place", 2000)):
        assert event_from_object(loads(spelled.frame(one, is_text=False))) == one
