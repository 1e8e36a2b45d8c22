"""Streams as JSON, held to files that other languages' clients can be held to as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediamesh.api.stream.v1 import chunk_pb2, stream_pb2, stream_service_pb2
from mediamesh.wire import result_json, stream_json
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.strict_json import dumps, loads
from tests.wire.stream_samples import CHUNKS, FRAMES, PIXEL, PUBLISH_EVENTS, PUBLISH_FRAMES, STREAM_ID

GOLDEN = Path(__file__).parent / "golden" / "streams"
KINDS = [field.name for field in chunk_pb2.Chunk.DESCRIPTOR.oneofs_by_name["payload"].fields]


def golden(folder, name):
    return (GOLDEN / folder / f"{name}.json").read_text().removesuffix("\n")


def test_there_is_a_sample_of_every_kind() -> None:
    assert list(CHUNKS) == KINDS
    assert [value.name.removeprefix("CHUNK_KIND_").lower() for value in chunk_pb2.ChunkKind.DESCRIPTOR.values][
        1:
    ] == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_of_every_kind_is_spelled_as_agreed(kind) -> None:
    text = golden("chunks", kind)
    assert dumps(stream_json.chunk_object(CHUNKS[kind])) == text
    assert stream_json.chunk_from_object(loads(text)) == CHUNKS[kind]


@pytest.mark.parametrize("name", FRAMES)
def test_what_a_reader_gets_is_spelled_as_agreed(name) -> None:
    text = golden("frames", name)
    assert dumps(stream_json.frame_object(STREAM_ID, FRAMES[name])) == text
    frame = stream_json.frame_from_object(loads(text))
    assert frame.stream_id == STREAM_ID
    assert same(frame.body, FRAMES[name])


@pytest.mark.parametrize("name", PUBLISH_FRAMES)
def test_what_a_producer_gets_is_spelled_as_agreed(name) -> None:
    text = golden("publish", name)
    assert dumps(stream_json.publish_frame_object(STREAM_ID, PUBLISH_FRAMES[name])) == text
    assert stream_json.publish_frame_from_object(loads(text)) == (STREAM_ID, PUBLISH_FRAMES[name])


def test_what_a_producer_sends_is_spelled_as_agreed() -> None:
    text = golden("publish", "event")
    assert dumps(stream_json.publish_event_object(PUBLISH_EVENTS["event"])) == text
    assert stream_json.publish_event_from_object(loads(text)) == PUBLISH_EVENTS["event"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_of_every_kind_is_spelled_as_agreed(kind) -> None:
    text = golden("results", kind)
    assert dumps(result_json.result_object(CHUNKS[kind], 2)) == text
    sequence, again = result_json.result_from_object(loads(text))
    assert isinstance(again, chunk_pb2.Chunk)
    assert again.WhichOneof("payload") == kind
    # Whatever its own envelope has no place for, the time among it, is left out; what it says is read back.
    assert dumps(result_json.result_object(again, sequence or 2)) == text


@pytest.mark.parametrize("name", ["gap", "heartbeat", "go_away"])
def test_what_is_no_chunk_of_a_result_is_spelled_as_agreed(name) -> None:
    text = golden("results", name)
    assert dumps(result_json.control_object(FRAMES[name], 12)) == text
    assert result_json.result_from_object(loads(text)) == (12, FRAMES[name])


def test_a_producer_is_told_of_an_error_as_a_reader_is() -> None:
    assert stream_json.publish_frame_object(STREAM_ID, FRAMES["error"]) == loads(golden("frames", "error"))
    stream_id, error = stream_json.publish_frame_from_object(loads(golden("frames", "error")))
    assert stream_id == STREAM_ID
    assert same(error, FRAMES["error"])


def test_bytes_can_go_beside_the_json() -> None:
    event = stream_pb2.StreamEvent(event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA, sequence=2)
    event.payload.data.CopyFrom(CHUNKS["media"])
    spelled, data = stream_json.event_apart(event)
    assert data == PIXEL
    media = spelled["payload"]["data"]["media"]
    assert (media["encoding"], media["data"]) == ("binary", None)
    assert stream_json.event_from_object(loads(dumps(spelled)), data=data) == event


def test_an_event_without_bytes_has_nothing_beside_its_json() -> None:
    assert stream_json.event_apart(FRAMES["stream_data"]) == (stream_json.event_object(FRAMES["stream_data"]), None)


def test_what_a_producer_sends_can_have_bytes_beside_it() -> None:
    event = stream_service_pb2.PublishEvent(sequence=1, event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA)
    event.payload.data.CopyFrom(CHUNKS["attachment"])
    spelled, data = stream_json.publish_event_apart(event)
    assert data == b"first half"
    assert stream_json.publish_event_from_object(spelled, data=data) == event


def test_a_line_of_json_has_one_end_for_every_reader() -> None:
    chunk = chunk_pb2.Chunk(content=chunk_pb2.TextContent(text="a\r\nb\u2028c\u2029d\x85e\x0bf\x1cg"))
    text = dumps(stream_json.chunk_object(chunk))
    assert len(text.splitlines()) == 1
    assert stream_json.chunk_from_object(loads(text)) == chunk


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ('{"event_type":"stream_end","event_type":"stream_end"}', "'event_type' stands there twice"),
        ("[]", "must be an object, is a list"),
        ('{"event_type":"stream_over"}', "event_type: must be one of stream_start, stream_data"),
        ('{"event_type":"stream_end","sequence":-1}', "sequence: must be a whole number"),
        ('{"event_type":"stream_end","sequence":1.0}', "sequence: must be a whole number"),
        ('{"event_type":"stream_end","sequence":true}', "sequence: must be a whole number"),
        ('{"event_type":"stream_end","sequence":NaN}', "NaN is no number of JSON"),
        ('{"event_type":"stream_end","sequence":1,"token":"x"}', "token: is unknown here"),
        ('{"event_type":"stream_data","payload":{"data":{"kind":"contents"}}}', "payload.data.kind: must be one of"),
        ('{"event_type":"stream_data","payload":{"data":{"kind":"content"}}}', "payload.data.content: must be set"),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"content","content":{"txt":""}}}}',
            "payload.data.content.txt: is unknown here",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"content","content":{"text":"\\ud800"}}}}',
            "payload.data.content.text: must be text that UTF-8 can carry",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"content","delta":{},"content":{}}}}',
            "payload.data.content: stands beside delta",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"content","content":{"text":""},"timestamp":"noon"}}}',
            "payload.data.timestamp: must be a time",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"media","media":{"encoding":"base64","data":"a"}}}}',
            "payload.data.media.data: must be base64",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"media","media":{"encoding":"binary","data":null}}}}',
            "payload.data.media.data: is missing",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"media","media":{"encoding":"binary","data":"x"}}}}',
            "payload.data.media.data: must be null",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"media","media":{"binary":"eA=="}}}}',
            "payload.data.media.binary: is unknown here",
        ),
        (
            '{"event_type":"stream_data","payload":{"data":{"kind":"media","media":{"media_type":"smell"}}}}',
            "payload.data.media.media_type: must be one of image, audio, video, document, file",
        ),
        ('{"event_type":"stream_error","payload":{"error":{"code":5}}}', "payload.error.code: must be the name"),
        (
            (
                '{"event_type":"stream_error","payload":{"error":{"code":"ABORTED","details":'
                '[{"@type":"type.googleapis.com/google.rpc.RetryInfo","\\ud800":1}]}}}'
            ),
            "payload.error.details[0]: must be a detail as protobuf spells it",
        ),
        ('{"event_type":"stream_end","\\ud800":1}', "\\ud800: is unknown here"),
        ('{"event_type":"stream_end","sequence":' + "9" * 5000 + "}", "must be JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(text, complaint) -> None:
    with pytest.raises(InvalidRequest) as caught:
        stream_json.publish_event_from_object(loads(text))
    assert complaint in caught.value.text


def test_bytes_beside_json_that_has_no_place_for_them_are_refused() -> None:
    text = golden("publish", "event")
    with pytest.raises(InvalidRequest, match=r"payload\.data: must be media with the encoding binary"):
        stream_json.publish_event_from_object(loads(text), data=b"x")
    with pytest.raises(InvalidRequest, match=r"payload\.data: must be a chunk of media"):
        stream_json.publish_event_from_object({"event_type": "stream_end", "sequence": 1}, data=b"x")


def test_a_number_that_json_has_not_does_not_stop_the_rest() -> None:
    event = stream_pb2.StreamEvent(event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA)
    event.payload.data.snapshot.data.list_value.values.add(number_value=float("nan"))
    event.payload.data.media_progress.percentage = float("inf")
    assert "inf" in dumps(stream_json.event_object(event))
    event.payload.data.snapshot.data.list_value.values.add(number_value=float("nan"))
    assert '"NaN"' in dumps(stream_json.event_object(event))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"ok":true,"chunk":{}}',
        '{"final":true,"meta":{},"data":1,"usage":{"tokens":3}}',
        '{"ok":false,"error":{"code":1,"message":""}}',
        '{"chunk":{"seq":-1,"type":"delta","field":"a","delta":"b"}}',
        '{"chunk":{"seq":1,"type":"content","chunk":{"kind":"done","done":{}}}}',
        '{"progress":{"seq":1,"percent":"50"}}',
    ],
)
def test_what_is_no_result_is_refused(text) -> None:
    with pytest.raises(InvalidRequest):
        result_json.result_from_object(loads(text))


def same(one, other):
    if isinstance(one, MeshError):
        return (type(one), one.text, one.metadata, one.details) == (
            type(other),
            other.text,
            other.metadata,
            other.details,
        )
    return one == other
