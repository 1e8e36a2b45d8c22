"""One valid chunk of every kind, and everything else that travels on a stream, for golden files."""

from __future__ import annotations

import hashlib

from google.protobuf import json_format

from mediamesh.api.media.v1 import media_pb2
from mediamesh.api.stream.v1 import chunk_pb2 as pb
from mediamesh.api.stream.v1 import stream_pb2, stream_service_pb2
from mediamesh.wire.errors import Overloaded, StreamTimeout

STREAM_ID = "s-1"
PIXEL = b"\x89PNG\r\n\x1a\n"
USAGE = pb.Usage(input_tokens=12, output_tokens=30, total_tokens=42)


def _value(text):
    return json_format.Parse(text, pb.Snapshot().data)


def _chunk(**payload):
    chunk = pb.Chunk(sequence_number=2, source="writer", **payload)
    chunk.timestamp.FromJsonString("2026-11-21T13:00:00.123Z")
    return chunk


CHUNKS = {
    "content": _chunk(content=pb.TextContent(text="Hel")),
    "tool_calls": _chunk(
        tool_calls=pb.ToolCalls(calls=[pb.ToolCall(id="call-1", name="weather", arguments_json='{"city":"Ulm"}')])
    ),
    "complete_message": _chunk(
        complete_message=pb.CompleteMessage(item_id="msg-1", text="Hello", tool_calls=[pb.ToolCall(name="weather")])
    ),
    "complete_response": _chunk(
        complete_response=pb.CompleteResponse(
            response_id="resp-1", messages=[pb.CompleteMessage(item_id="msg-1", text="Hello")], usage=USAGE
        )
    ),
    "done": _chunk(done=pb.Done(reason="stop", usage=USAGE)),
    "error": _chunk(error=StreamTimeout("The stream outlived its 300 s.").to_status()),
    "agent_status": _chunk(agent_status=pb.AgentStatus(status="loading", detail="Reading the model.")),
    "reasoning": _chunk(reasoning=pb.Reasoning(item_id="r-1", content_index=1, reasoning_delta="First")),
    "reasoning_done": _chunk(
        reasoning_done=pb.Reasoning(item_id="r-1", summary_index=2, reasoning_summary_text="First, then second.")
    ),
    "media": _chunk(
        media=pb.Media(
            media_type=media_pb2.MEDIA_TYPE_IMAGE,
            encoding=pb.MEDIA_ENCODING_BINARY,
            binary=PIXEL,
            total_chunks=1,
            caption="A picture.",
            metadata=pb.MediaMetadata(
                mime_type="image/png",
                size_bytes=len(PIXEL),
                width=1,
                height=1,
                filename="dot.png",
                checksum=hashlib.sha256(PIXEL).hexdigest(),
            ),
            attachments=[
                pb.Media(
                    media_type=media_pb2.MEDIA_TYPE_AUDIO,
                    encoding=pb.MEDIA_ENCODING_URL,
                    text="https://example.org/a.opus",
                    metadata=pb.MediaMetadata(mime_type="audio/opus", duration_seconds=1.5),
                )
            ],
            progress=pb.MediaProgress(percentage=100, bytes_transferred=8, total_bytes=8),
        )
    ),
    "media_progress": _chunk(
        media_progress=pb.MediaProgress(percentage=12.5, bytes_transferred=1024, total_bytes=8192)
    ),
    "attachment": _chunk(
        attachment=pb.Media(
            media_type=media_pb2.MEDIA_TYPE_FILE,
            encoding=pb.MEDIA_ENCODING_BINARY,
            binary=b"first half",
            is_partial=True,
            total_chunks=2,
        )
    ),
    "attachment_complete": _chunk(
        attachment_complete=pb.Media(
            media_type=media_pb2.MEDIA_TYPE_DOCUMENT,
            encoding=pb.MEDIA_ENCODING_URL,
            ref=media_pb2.MediaReference(
                url="s3://media/report.pdf",
                size_bytes=2048576,
                metadata=media_pb2.MediaFacts(mime_type="application/pdf"),
                sha256="0" * 64,
            ),
        )
    ),
    "meta": _chunk(
        meta=pb.ResultMeta(session_id="session-1", confidence=0.75, risk="low", explain="Read from the report.")
    ),
    "delta": _chunk(delta=pb.Delta(field="answer.text", text="Hel")),
    "snapshot": _chunk(snapshot=pb.Snapshot(data=_value('{"answer": {"text": "Hello", "parts": [1, 2.5, null]}}'))),
    "progress": _chunk(progress=pb.Progress(percent=50, message="half way")),
    "final": _chunk(
        final=pb.Final(meta=pb.ResultMeta(confidence=1), data=_value('{"answer": {"text": "Hello"}}'), usage=USAGE)
    ),
}

METADATA = stream_pb2.StreamMetadata(total_chunks=3, mime_type="text/plain", encoding="utf-8")


def event(event_type, sequence, **payload):
    made = stream_pb2.StreamEvent(
        event_type=event_type,
        stream_id=STREAM_ID,
        node_id="llm",
        pin_name="answer",
        sequence=sequence,
        payload=stream_pb2.StreamPayload(**payload),
    )
    made.timestamp.FromJsonString("2026-11-21T13:00:00.500Z")
    return made


FRAMES = {
    "stream_start": event(stream_pb2.STREAM_EVENT_TYPE_STREAM_START, 1, metadata=METADATA),
    "stream_data": event(stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA, 2, data=CHUNKS["content"], metadata=METADATA),
    "stream_end": event(
        stream_pb2.STREAM_EVENT_TYPE_STREAM_END, 3, metadata=stream_pb2.StreamMetadata(total_chunks=1, reason="stop")
    ),
    "stream_error": event(
        stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR,
        3,
        error=StreamTimeout("The stream outlived its 300 s.").to_status(),
    ),
    "gap": stream_pb2.StreamGap(first_sequence=3, last_sequence=7),
    "heartbeat": stream_pb2.StreamHeartbeat(last_sequence=12),
    "go_away": stream_pb2.StreamGoAway(reason="The server restarts.", resume_token="12"),
    "error": Overloaded.retry("The reader lags.", 1.5, stream_id=STREAM_ID, sequence=7),
}

_WINDOW = stream_service_pb2.PublishWindow(items=9_998, bytes=8_388_000)
PUBLISH_FRAMES = {
    "opened": stream_service_pb2.PublishResponse(
        opened=stream_service_pb2.PublishOpened(producer_id="p-1", epoch=1, last_sequence=0, window=_WINDOW)
    ),
    "ack": stream_service_pb2.PublishResponse(ack=stream_service_pb2.PublishAck(sequence=2, window=_WINDOW)),
    "policy": stream_service_pb2.PublishResponse(
        notice=stream_service_pb2.PolicyNotice(
            overflow=stream_pb2.OVERFLOW_POLICY_DROP_NEWEST,
            dropped=stream_pb2.StreamGap(first_sequence=3, last_sequence=4),
        )
    ),
    "go_away": stream_service_pb2.PublishResponse(go_away=FRAMES["go_away"]),
}

PUBLISH_EVENTS = {
    "event": stream_service_pb2.PublishEvent(
        sequence=2, event_type=stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA, payload=FRAMES["stream_data"].payload
    ),
}
