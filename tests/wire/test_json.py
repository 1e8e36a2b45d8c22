from __future__ import annotations

import json
import math

from google.protobuf import json_format, struct_pb2

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.wire.errors import NotFound
from mediamesh.wire.json import to_json, to_object

REFERENCE = media_pb2.MediaReference(
    url="s3://bucket/key",
    size_bytes=2048576,
    metadata=media_pb2.MediaFacts(mime_type="image/jpeg", width=1920, height=1080),
)


def test_a_reference_looks_as_the_edges_promise() -> None:
    value = media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, ref=REFERENCE)
    assert json.loads(to_json(value)) == {
        "type": "image",
        "ref": {
            "url": "s3://bucket/key",
            "size": 2048576,
            "metadata": {"mimeType": "image/jpeg", "width": 1920, "height": 1080},
        },
    }


def test_maps_lists_and_nested_enums_take_the_edge_form() -> None:
    execution = execution_pb2.Execution(
        state=execution_pb2.EXECUTION_STATE_SUCCEEDED,
        nodes=[execution_pb2.NodeExecution(node_id="n", state=execution_pb2.NODE_STATE_FAILED)],
        last_sequence=2**40,
    )
    execution.nodes[0].outputs["image"].media.ref.CopyFrom(REFERENCE)
    spelled = to_object(execution)
    assert spelled["state"] == "succeeded"
    assert spelled["lastSequence"] == 2**40
    assert spelled["nodes"][0]["state"] == "failed"
    assert spelled["nodes"][0]["outputs"]["image"]["media"]["ref"]["size"] == 2048576


def test_json_values_stay_as_they_are() -> None:
    value = value_pb2.Value(json=struct_pb2.Value(string_value="MEDIA_TYPE_IMAGE"))
    assert to_object(value) == {"json": "MEDIA_TYPE_IMAGE"}


def test_whole_numbers_have_no_fraction() -> None:
    value = value_pb2.Value()
    json_format.Parse('[285, 0.5, 1e300, {"index": 7}]', value.json)
    assert to_json(value) == '{"json":[285,0.5,1e+300,{"index":7}]}'
    assert to_json(value_pb2.Value(number=3)) == '{"number":3}'


def test_one_message_is_always_the_same_bytes() -> None:
    value = value_pb2.Value()
    json_format.Parse('{"b": {"z": 1, "a": 2}, "a": [{"y": 0, "x": 0}], "c": 3}', value.json)
    assert to_json(value) == '{"json":{"a":[{"x":0,"y":0}],"b":{"a":2,"z":1},"c":3}}'


def test_what_json_cannot_say_does_not_hide_the_rest() -> None:
    event = execution_pb2.ExecutionEvent(sequence=3, node_id="n")
    event.node_chunk.pin = "stream"
    chunk = event.node_chunk.chunk
    chunk.sequence_number = 1
    chunk.timestamp.seconds = 2**60
    chunk.snapshot.data.struct_value.fields["list"].list_value.values.add(number_value=math.inf)
    chunk.snapshot.data.struct_value.fields["one"].number_value = 1
    assert to_object(event) == {
        "sequence": 3,
        "nodeId": "n",
        "nodeChunk": {
            "pin": "stream",
            "chunk": {"sequenceNumber": 1, "snapshot": {"data": {"list": ["Infinity"], "one": 1}}},
        },
    }
    assert chunk.timestamp.seconds == 2**60


def test_a_detail_of_an_error_that_is_not_known_here_stands_as_its_type_and_bytes() -> None:
    error = NotFound("Gone.").to_status()
    error.details.add(type_url="type.googleapis.com/else.where.Detail", value=b"detail")
    error.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    failed = to_object(execution_pb2.NodeFailed(error=error))["error"]
    known, *others = failed["details"]
    assert (failed["code"], failed["message"], known["reason"]) == (5, "Gone.", "NOT_FOUND")
    assert [detail["value"] for detail in others] == [
        {"@type": "type.googleapis.com/else.where.Detail", "bytes": "ZGV0YWls"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "bytes": "/w=="},
    ]
