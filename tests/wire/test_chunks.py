from __future__ import annotations

import base64
import hashlib

import pytest
from google.protobuf.struct_pb2 import ListValue, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from mediamesh.api.media.v1 import media_pb2
from mediamesh.api.stream.v1 import chunk_pb2 as pb
from mediamesh.wire import chunks
from tests.wire.stream_samples import CHUNKS

IMAGE = media_pb2.MEDIA_TYPE_IMAGE
TEN = b"0123456789"


def media(**fields):
    given = {"media_type": IMAGE, "encoding": pb.MEDIA_ENCODING_BINARY} | fields
    if given["encoding"] == pb.MEDIA_ENCODING_BINARY and not {"binary", "text"} & given.keys():
        given["binary"] = TEN
    return pb.Chunk(media=pb.Media(**given))


def known(**facts):
    return pb.MediaMetadata(**facts)


@pytest.mark.parametrize("kind", CHUNKS)
def test_the_sample_of_every_kind_is_valid(kind) -> None:
    assert chunks.problems(CHUNKS[kind]) == []
    assert chunks.is_valid(CHUNKS[kind])
    assert chunks.kind_of(CHUNKS[kind]) == kind
    assert chunks.is_terminal(CHUNKS[kind]) == (kind in {"done", "error", "final"})


VALID = [
    media(),
    media(metadata=known(size_bytes=10, checksum=hashlib.sha256(TEN).hexdigest())),
    media(is_partial=True),
    media(is_partial=True, total_chunks=3, chunk_index=1, metadata=known(size_bytes=30, checksum="0" * 64)),
    media(total_chunks=3, chunk_index=2),
    media(chunk_index=2),
    media(encoding=pb.MEDIA_ENCODING_BASE64, text=base64.b64encode(TEN).decode(), metadata=known(size_bytes=10)),
    media(encoding=pb.MEDIA_ENCODING_FILE_PATH, text="/tmp/a picture.png"),
    media(encoding=pb.MEDIA_ENCODING_URL, text="https://example.org/a.png"),
    media(binary=b"", chunk_index=1),
    pb.Chunk(content=pb.TextContent()),
    pb.Chunk(complete_message=pb.CompleteMessage(tool_calls=[pb.ToolCall(name="now")])),
    pb.Chunk(media_progress=pb.MediaProgress(percentage=100, bytes_transferred=5)),
]


@pytest.mark.parametrize("chunk", VALID, ids=range(len(VALID)))
def test_what_is_valid(chunk) -> None:
    assert chunks.problems(chunk) == []


INVALID = [
    (pb.Chunk(), "payload", "exactly one field is required"),
    (pb.Chunk(source="x" * 257, content=pb.TextContent()), "source", "256"),
    (pb.Chunk(timestamp=Timestamp(seconds=2**60), content=pb.TextContent()), "timestamp", "years"),
    (media(media_type=0), "media.media_type", "must not be in list"),
    (media(encoding=0, text="x"), "media.encoding", "must not be in list"),
    (media(encoding=pb.MEDIA_ENCODING_BINARY, text="x"), "media.encoding", "binary does not fit data that is text"),
    (media(encoding=pb.MEDIA_ENCODING_URL, binary=b"x"), "media.encoding", "url does not fit data that is bytes"),
    (media(encoding=pb.MEDIA_ENCODING_BASE64, text="YWJ"), "media.data", "base64"),
    (media(encoding=pb.MEDIA_ENCODING_BASE64, text="YW J="), "media.data", "base64"),
    (media(encoding=pb.MEDIA_ENCODING_BASE64, text="äää="), "media.data", "base64"),
    (media(encoding=pb.MEDIA_ENCODING_URL, text="no address"), "media.data", "with a scheme"),
    (media(encoding=pb.MEDIA_ENCODING_FILE_PATH, text=""), "media.data", "a path"),
    (media(binary=b""), "media.data", "must not be empty"),
    (media(total_chunks=2, chunk_index=2), "media.chunk_index", "below total_chunks, 2, is 2"),
    (media(total_chunks=2, chunk_index=1, is_partial=True), "media.is_partial", "piece 1 is the last of 2"),
    (media(total_chunks=2), "media.is_partial", "piece 0 is not the last of 2"),
    (
        media(encoding=pb.MEDIA_ENCODING_URL, text="https://a.b/c", is_partial=True),
        "media.is_partial",
        "an address is whole",
    ),
    (media(metadata=known(size_bytes=11)), "media.metadata.size_bytes", "must be 10"),
    (media(is_partial=True, metadata=known(size_bytes=9)), "media.metadata.size_bytes", "this piece alone has 10"),
    (media(metadata=known(checksum="0" * 64)), "media.metadata.checksum", hashlib.sha256(TEN).hexdigest()),
    (media(metadata=known(checksum="XYZ")), "media.metadata.checksum", "pattern"),
    (media(metadata=known(duration_seconds=float("nan"))), "media.metadata.duration_seconds", "finite"),
    (
        media(progress=pb.MediaProgress(bytes_transferred=3, total_bytes=2)),
        "media.progress.bytes_transferred",
        "at most total_bytes, 2",
    ),
    (media(progress=pb.MediaProgress(percentage=100.5)), "media.progress.percentage", "100"),
    (
        media(
            attachments=[pb.Media(media_type=IMAGE, encoding=pb.MEDIA_ENCODING_BINARY, binary=b"x", is_partial=True)]
        ),
        "media.attachments[0].is_partial",
        "is whole",
    ),
    (
        media(attachments=[media(attachments=[media().media]).media]),
        "media.attachments[0].attachments",
        "none of its own",
    ),
    (
        media(attachments=[media(metadata=known(size_bytes=3)).media]),
        "media.attachments[0].metadata.size_bytes",
        "must be 10",
    ),
    (
        pb.Chunk(attachment_complete=media(is_partial=True).media),
        "attachment_complete.is_partial",
        "the attachment is complete",
    ),
    (pb.Chunk(media_progress=pb.MediaProgress(percentage=-1)), "media_progress.percentage", "0"),
    (pb.Chunk(progress=pb.Progress(percent=101)), "progress.percent", "100"),
    (pb.Chunk(tool_calls=pb.ToolCalls()), "tool_calls.calls", "1"),
    (pb.Chunk(tool_calls=pb.ToolCalls(calls=[pb.ToolCall()])), "tool_calls.calls[0].id", "must be set"),
    (
        pb.Chunk(complete_message=pb.CompleteMessage(tool_calls=[pb.ToolCall(name="a", arguments_json="{")])),
        "complete_message.tool_calls[0].arguments_json",
        "must be JSON",
    ),
    (
        pb.Chunk(
            complete_response=pb.CompleteResponse(messages=[pb.CompleteMessage(tool_calls=[pb.ToolCall(id="a")])])
        ),
        "complete_response.messages[0].tool_calls[0].name",
        "must be set",
    ),
    (pb.Chunk(error=Status(message="?")), "error.code", "1 to 16, is 0"),
    (pb.Chunk(agent_status=pb.AgentStatus()), "agent_status.status", "must be set"),
    (pb.Chunk(reasoning=pb.Reasoning(reasoning_text="x")), "reasoning.text", "must be a piece"),
    (pb.Chunk(reasoning_done=pb.Reasoning(reasoning_delta="x")), "reasoning_done.text", "in full"),
    (pb.Chunk(delta=pb.Delta(field="a..b")), "delta.field", "a path of names"),
    (pb.Chunk(delta=pb.Delta(text="x")), "delta.field", "a path of names"),
    (pb.Chunk(snapshot=pb.Snapshot()), "snapshot.data", "must be set"),
    (pb.Chunk(final=pb.Final()), "final.data", "must be set"),
    (pb.Chunk(final=pb.Final(data=Value(number_value=float("inf")))), "final.data", "infinity or NaN"),
    (
        pb.Chunk(snapshot=pb.Snapshot(data=Value(list_value=ListValue(values=[Value(number_value=float("nan"))])))),
        "snapshot.data",
        "infinity or NaN",
    ),
    (pb.Chunk(meta=pb.ResultMeta(confidence=2)), "meta.confidence", "1"),
]


@pytest.mark.parametrize(("chunk", "field", "text"), INVALID, ids=range(len(INVALID)))
def test_what_is_not_valid_is_named(chunk, field, text) -> None:
    found = chunks.problems(chunk)
    assert any(name == field and text in said for name, said in found), found
    assert not chunks.is_valid(chunk)


def test_rules_of_single_fields_need_not_be_asked_twice() -> None:
    chunk = pb.Chunk(source="x" * 300, agent_status=pb.AgentStatus())
    assert [field for field, _ in chunks.problems(chunk)] == ["source", "agent_status.status"]
    assert [field for field, _ in chunks.problems(chunk, fields_checked=True)] == ["agent_status.status"]


COMPLETE = [
    (media(), True),
    (media(is_partial=True), False),
    (media(chunk_index=4, total_chunks=5), True),
    (media(metadata=known(size_bytes=11)), False),
    (pb.Chunk(attachment=media(is_partial=True).media), False),
    (CHUNKS["attachment_complete"], True),
    (CHUNKS["content"], False),
    (CHUNKS["media_progress"], False),
]


@pytest.mark.parametrize(("chunk", "complete"), COMPLETE, ids=range(len(COMPLETE)))
def test_media_is_complete_when_nothing_of_it_follows(chunk, complete) -> None:
    assert chunks.media_is_complete(chunk) is complete
