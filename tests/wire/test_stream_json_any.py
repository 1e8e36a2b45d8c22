"""Whatever a stream can carry comes back from its JSON, and whatever JSON comes in is taken or refused in words."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from google.protobuf import message_factory, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediamesh.api.stream.v1 import chunk_pb2, stream_pb2, stream_service_pb2
from mediamesh.wire import result_json, stream_json
from mediamesh.wire.chunks import problems
from mediamesh.wire.errors import InvalidRequest, NotFound
from mediamesh.wire.strict_json import dumps, loads

pytestmark = pytest.mark.stack

# A loaded machine is slow and not wrong.
ANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def messages(draw, kind, depth=0):
    """Any message of a type, with what its JSON keeps."""
    name = kind.DESCRIPTOR.full_name
    if name == "google.protobuf.Value":
        return json_value(draw(PLAIN))
    if name == "google.protobuf.Timestamp":
        return kind(
            seconds=draw(st.integers(-62_135_596_800, 253_402_300_799)), nanos=draw(st.integers(0, 999_999_999))
        )
    if name == "google.rpc.Status":
        return NotFound(
            draw(TEXTS), **draw(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), TEXTS, max_size=1))
        ).to_status()
    made = kind()
    chosen = {
        oneof.name: draw(st.sampled_from(list(oneof.fields)))
        for oneof in kind.DESCRIPTOR.oneofs
        if len(oneof.fields) > 1
    }
    for field in kind.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in chosen:
            if chosen[oneof.name] is not field:
                continue
        elif depth > 3 or draw(st.booleans()):
            continue
        put(draw, made, field, depth)
    if name.endswith(".Media"):
        carry(draw, made)
    return made


def put(draw, made, field, depth):
    values = (
        scalars(field)
        if field.message_type is None
        else messages(message_factory.GetMessageClass(field.message_type), depth + 1)
    )
    if field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(values, max_size=2)))
    elif field.message_type is None:
        setattr(made, field.name, draw(values))
    else:
        getattr(made, field.name).CopyFrom(draw(values))


def scalars(field):
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.cpp_type in RANGES:
        return st.integers(*RANGES[field.cpp_type])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    return {
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False).map(
            lambda number: number + 0.0
        ),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: TEXTS,
    }[field.cpp_type]


def carry(draw, media):
    """Make the encoding fit the data, as it does in every valid chunk; bytes are bytes and not base64."""
    if media.WhichOneof("data") == "binary":
        media.encoding = chunk_pb2.MEDIA_ENCODING_BINARY
    else:
        media.encoding = draw(st.sampled_from([chunk_pb2.MEDIA_ENCODING_URL, chunk_pb2.MEDIA_ENCODING_FILE_PATH]))


def json_value(plain):
    value = struct_pb2.Value()
    if plain is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(plain, bool):
        value.bool_value = plain
    elif isinstance(plain, int | float):
        value.number_value = plain + 0.0
    elif isinstance(plain, str):
        value.string_value = plain
    elif isinstance(plain, list):
        value.list_value.values.extend(json_value(entry) for entry in plain)
        value.list_value.SetInParent()
    else:
        value.struct_value.SetInParent()
        for name, entry in plain.items():
            value.struct_value.fields[name].CopyFrom(json_value(entry))
    return value


@given(messages(chunk_pb2.Chunk))
@settings(ANY, max_examples=300)
def test_every_chunk_comes_back(chunk) -> None:
    text = dumps(stream_json.chunk_object(chunk))
    assert stream_json.chunk_from_object(loads(text)) == chunk
    assert dumps(json.loads(text)) == text
    assert isinstance(problems(chunk), list)


@given(
    messages(stream_pb2.StreamPayload),
    st.sampled_from(list(stream_json.EVENT_TYPES.values())),
    st.integers(0, 2**64 - 1),
)
@settings(ANY, max_examples=150)
def test_every_event_comes_back_with_its_bytes_within_or_beside(payload, event_type, sequence) -> None:
    event = stream_pb2.StreamEvent(event_type=event_type, stream_id="s", sequence=sequence)
    sent = stream_service_pb2.PublishEvent(event_type=event_type, sequence=sequence)
    if payload.ByteSize():
        event.payload.CopyFrom(payload)
        sent.payload.CopyFrom(payload)
    assert stream_json.event_from_object(loads(dumps(stream_json.event_object(event)))) == event
    spelled, data = stream_json.event_apart(event)
    assert stream_json.event_from_object(loads(dumps(spelled)), data=data) == event
    spelled, data = stream_json.publish_event_apart(sent)
    assert stream_json.publish_event_from_object(loads(dumps(spelled)), data=data) == sent


@given(messages(stream_service_pb2.PublishResponse))
@settings(ANY, max_examples=100)
def test_every_frame_to_a_producer_comes_back(frame) -> None:
    text = dumps(stream_json.publish_frame_object("s", frame))
    assert stream_json.publish_frame_from_object(loads(text)) == ("s", frame)


@given(messages(chunk_pb2.Chunk), st.integers(0, 2**64 - 1))
@settings(ANY, max_examples=150)
def test_every_result_is_spelled_again_as_it_was(chunk, sequence) -> None:
    text = dumps(result_json.result_object(chunk, sequence))
    found, again = result_json.result_from_object(loads(text))
    assert isinstance(again, chunk_pb2.Chunk)
    assert dumps(result_json.result_object(again, found or sequence)) == text


@given(st.binary(max_size=32))
def test_base64_becomes_the_bytes_it_stands_for(data) -> None:
    chunk = chunk_pb2.Chunk()
    chunk.media.encoding, chunk.media.text = chunk_pb2.MEDIA_ENCODING_BASE64, base64.b64encode(data).decode()
    again = stream_json.chunk_from_object(loads(dumps(stream_json.chunk_object(chunk))))
    assert (again.media.encoding, again.media.binary) == (chunk_pb2.MEDIA_ENCODING_BINARY, data)


# Half a character, which JSON can spell, among them.
ANY_TEXTS = st.text(st.characters(exclude_categories=[]), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted(
    {"event_type", "error", "chunk", "progress", "final", "ok", "kind", "seq", "type"}
    | {
        field.name
        for message in (
            chunk_pb2.Chunk,
            stream_pb2.StreamEvent,
            stream_pb2.StreamPayload,
            chunk_pb2.Media,
            chunk_pb2.Final,
        )
        for field in message.DESCRIPTOR.fields
    }
)
NAMES = [
    *stream_json.EVENT_TYPES,
    "gap",
    "heartbeat",
    "go_away",
    "error",
    "opened",
    "ack",
    "policy",
    "media",
    "final",
    "image",
]
NEAR = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(NAMES) | ANY_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "\ud800"]), inner, max_size=5),
    max_leaves=20,
)


@given(st.text(max_size=60) | (JSON | NEAR).map(json.dumps) | st.binary(max_size=60))
@settings(ANY, max_examples=500)
def test_any_text_is_taken_or_refused_in_words(text) -> None:
    for read in (
        stream_json.frame_from_object,
        stream_json.publish_event_from_object,
        stream_json.publish_frame_from_object,
        stream_json.chunk_from_object,
        result_json.result_from_object,
    ):
        # Nothing else than an error of the tree leaves it.
        with contextlib.suppress(InvalidRequest):
            read(loads(text))
