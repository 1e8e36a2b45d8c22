"""What a chunk is, whether it is valid, and whether its media is whole: the one place for the rules of every kind.

What the contract says of single fields (lengths, ranges) protovalidate checks; here are the rules that tie fields
together. ``problems`` asks both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import protovalidate

from mediamesh.api.stream.v1 import chunk_pb2 as pb
from mediamesh.wire.media_chunks import Problem, media_problems, progress_problems

__all__ = ["TERMINAL_KINDS", "is_terminal", "is_valid", "kind_of", "media_is_complete", "media_of", "problems"]

TERMINAL_KINDS = frozenset({"done", "error", "final"})
"""Kinds after which no chunk follows."""

_MEDIA_KINDS = frozenset({"media", "attachment", "attachment_complete"})
# google.protobuf.Timestamp: the years 1 to 9999.
_FIRST_SECOND, _LAST_SECOND, _NANOS = -62_135_596_800, 253_402_300_799, 1_000_000_000
_LAST_CODE = 16


def kind_of(chunk: pb.Chunk) -> str:
    """Return the kind of a chunk as JSON names it, such as ``content``; empty when it carries nothing."""
    return chunk.WhichOneof("payload") or ""


def is_terminal(chunk: pb.Chunk) -> bool:
    """Return whether no chunk follows this one."""
    return chunk.WhichOneof("payload") in TERMINAL_KINDS


def media_of(chunk: pb.Chunk) -> pb.Media | None:
    """Return the media that a chunk carries; None when its kind carries none."""
    kind = chunk.WhichOneof("payload")
    return getattr(chunk, kind) if kind in _MEDIA_KINDS else None


def media_is_complete(chunk: pb.Chunk) -> bool:
    """Return whether a chunk carries media of which nothing follows: all of it, or its last piece."""
    media = media_of(chunk)
    return media is not None and not media.is_partial and not problems(chunk)


def is_valid(chunk: pb.Chunk) -> bool:
    """Return whether a chunk keeps every rule of its kind."""
    return not problems(chunk)


def problems(chunk: pb.Chunk, *, fields_checked: bool = False) -> list[Problem]:
    """Return what is wrong with a chunk: pairs of a field path within the chunk, and what it must be.

    Args:
        chunk: The chunk.
        fields_checked: Whether the rules of single fields have been checked already, as a server does at its boundary.
    """
    found = [] if fields_checked else _field_problems(chunk)
    kind = chunk.WhichOneof("payload")
    if kind is None:
        return found or [("payload", "must be set")]
    if chunk.HasField("timestamp"):
        stamp = chunk.timestamp
        if not (_FIRST_SECOND <= stamp.seconds <= _LAST_SECOND and 0 <= stamp.nanos < _NANOS):
            found.append(("timestamp", "must be within the years 1 to 9999"))
    if rule := _RULES.get(kind):
        found.extend((f"{kind}.{field}", text) for field, text in rule(getattr(chunk, kind)))
    return found


def _field_problems(chunk: pb.Chunk) -> list[Problem]:
    try:
        protovalidate.validate(chunk)
    except protovalidate.ValidationError as error:
        return [(_path(violation.proto.field), violation.proto.message) for violation in error.violations]
    return []


def _path(field: Any) -> str:
    return ".".join(
        element.field_name + (f"[{element.subscript.value!r}]" if element.subscript is not None else "")
        for element in field.elements
    )


def _tool_calls(calls: pb.ToolCalls) -> Iterator[Problem]:
    for index, call in enumerate(calls.calls):
        if not (call.id or call.name):
            yield f"calls[{index}].id", "must be set where the name is not"


def _complete_message(message: pb.CompleteMessage) -> Iterator[Problem]:
    for index, call in enumerate(message.tool_calls):
        field = f"tool_calls[{index}]"
        if not call.name:
            yield f"{field}.name", "must be set in a message that is complete"
        # Models call tools without arguments by an empty text.
        if call.arguments_json and not _is_json(call.arguments_json):
            yield f"{field}.arguments_json", "must be JSON in a message that is complete"


def _complete_response(response: pb.CompleteResponse) -> Iterator[Problem]:
    for index, message in enumerate(response.messages):
        for field, text in _complete_message(message):
            yield f"messages[{index}].{field}", text


def _error(status: Any) -> Iterator[Problem]:
    if not 1 <= status.code <= _LAST_CODE:
        yield "code", f"must be the code of an error, 1 to {_LAST_CODE}, is {status.code}"


def _agent_status(status: pb.AgentStatus) -> Iterator[Problem]:
    if not status.status:
        yield "status", "must be set"


def _reasoning(reasoning: pb.Reasoning) -> Iterator[Problem]:
    if reasoning.WhichOneof("text") in {"reasoning_text", "reasoning_summary_text"}:
        yield "text", "must be a piece; the text in full is of the kind reasoning_done"


def _reasoning_done(reasoning: pb.Reasoning) -> Iterator[Problem]:
    if reasoning.WhichOneof("text") in {"reasoning_delta", "reasoning_summary_delta"}:
        yield "text", "must be the text in full; a piece is of the kind reasoning"


def _attachment_complete(media: pb.Media) -> Iterator[Problem]:
    yield from media_problems(media)
    if media.is_partial:
        yield "is_partial", "must be false: the attachment is complete"


def _delta(delta: pb.Delta) -> Iterator[Problem]:
    if not all(delta.field.split(".")):
        yield "field", "must be a path of names with dots between them"


def _snapshot(snapshot: pb.Snapshot) -> Iterator[Problem]:
    if not snapshot.HasField("data"):
        yield "data", "must be set"
    elif not _is_finite(snapshot.data):
        yield "data", "has a number that JSON has not: infinity or NaN"


def _final(final: pb.Final) -> Iterator[Problem]:
    if not final.HasField("data"):
        yield "data", "must be set"
    elif not _is_finite(final.data):
        yield "data", "has a number that JSON has not: infinity or NaN"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_finite(value: Any) -> bool:
    rest = [value]
    while rest:
        value = rest.pop()
        match value.WhichOneof("kind"):
            case "number_value":
                if not math.isfinite(value.number_value):
                    return False
            case "struct_value":
                rest.extend(value.struct_value.fields.values())
            case "list_value":
                rest.extend(value.list_value.values)
    return True


_RULES: Mapping[str, Callable[[Any], Iterator[Problem]]] = {
    "tool_calls": _tool_calls,
    "complete_message": _complete_message,
    "complete_response": _complete_response,
    "error": _error,
    "agent_status": _agent_status,
    "reasoning": _reasoning,
    "reasoning_done": _reasoning_done,
    "media": media_problems,
    "media_progress": progress_problems,
    "attachment": media_problems,
    "attachment_complete": _attachment_complete,
    "delta": _delta,
    "snapshot": _snapshot,
    "final": _final,
}
