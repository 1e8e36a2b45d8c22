"""Structured results in their own envelope, both ways.

===========  ======================================================================================
chunk        object
===========  ======================================================================================
meta         ``{"ok":true,"streaming":true,"session_id":"…","meta":{…}}``, the first
delta        ``{"chunk":{"seq":3,"type":"delta","field":"answer.text","delta":"…"}}``
snapshot     ``{"chunk":{"seq":4,"type":"snapshot","data":…}}``
progress     ``{"progress":{"seq":5,"percent":50,"message":"…"}}``
final        ``{"final":true,"meta":{…},"data":…,"usage":{…}}``, the last
done         the same with null for data: text that ends
error        ``{"ok":false,"error":{"code":"E2011","message":"…"}}``, the last
any other    ``{"chunk":{"seq":6,"type":"content","chunk":{…}}}``, as the event envelope has it
===========  ======================================================================================

``seq`` is the sequence of the event in its stream: where a reader goes on after it. Events that were lost are
``{"chunk":{"seq":9,"type":"gap","first_sequence":7,"last_sequence":9}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from google.rpc import error_details_pb2, status_pb2

from mediamesh.api.errors.v1.error_reason_pb2 import ErrorReason
from mediamesh.api.stream.v1 import chunk_pb2 as pb
from mediamesh.api.stream.v1.stream_pb2 import StreamGap, StreamGoAway, StreamHeartbeat
from mediamesh.wire.errors import DOMAIN, InvalidRequest, MeshError
from mediamesh.wire.stream_spelling import SPELLING
from mediamesh.wire.strict_json import as_object, at, known

__all__ = ["Control", "control_object", "error_object", "result_from_object", "result_name", "result_object"]

Control: TypeAlias = StreamGap | StreamHeartbeat | StreamGoAway
"""What is no chunk."""

_CONTROL: Mapping[str, type[Control]] = {"gap": StreamGap, "heartbeat": StreamHeartbeat, "go_away": StreamGoAway}
_CONTROL_NAMES = {kind: name for name, kind in _CONTROL.items()}
_REASON = "ERROR_REASON_"
_NAMES = {"ok": "error", "final": "final", "progress": "progress", "chunk": "chunk"}
_FIRST_KEYS = frozenset({"ok", "streaming", "session_id", "meta"})
_FINAL_KEYS = frozenset({"final", "meta", "data", "usage"})
_ERROR_KEYS = frozenset({"ok", "error"})
_SEQ = frozenset({"seq"})


def result_object(chunk: pb.Chunk, seq: int) -> dict[str, Any]:
    """Return a chunk as what ``strict_json.dumps`` takes.

    Args:
        chunk: The chunk.
        seq: Sequence of its event in the stream.
    """
    kind = chunk.WhichOneof("payload") or ""
    if writer := _WRITERS.get(kind):
        return writer(getattr(chunk, kind), seq)
    return _chunk(seq, kind, {"chunk": SPELLING.write(chunk)})


def error_object(error: MeshError) -> dict[str, Any]:
    """Return the object that ends a result that failed; its code is the error's number, or its reason."""
    code = error.number or ErrorReason.Name(error.reason).removeprefix(_REASON)
    return {"ok": False, "error": {"code": code, "message": error.text}}


def control_object(frame: Control, seq: int) -> dict[str, Any]:
    """Return a ``gap``, a ``heartbeat`` or a ``go_away`` in the form of a chunk."""
    return _chunk(seq, _CONTROL_NAMES[type(frame)], SPELLING.fields(frame))


def result_name(spelled: Mapping[str, Any]) -> str:
    """Return what an object is: ``meta``, ``chunk``, ``progress``, ``final`` or ``error``."""
    return "meta" if spelled.get("ok") else _NAMES[next(iter(spelled))]


def result_from_object(value: Any, path: str = "") -> tuple[int, pb.Chunk | Control]:
    """Return the sequence, and the chunk or what is none, that an object spells; the first and the last have 0.

    An end without meta and data is read as ``done``.

    Raises:
        InvalidRequest: it spells none; names the path.
    """
    given = as_object(value, path)
    if "chunk" in given:
        return _read_chunk(known(given, frozenset({"chunk"}), path)["chunk"], at(path, "chunk"))
    if "progress" in given:
        where = at(path, "progress")
        body = as_object(known(given, frozenset({"progress"}), path)["progress"], where)
        progress = pb.Progress()
        SPELLING.read_fields(body, progress, where, _SEQ)
        return _seq(body, where), pb.Chunk(progress=progress)
    if given.get("final") is True:
        return 0, _read_final(known(given, _FINAL_KEYS, path), path)
    if given.get("ok") is True:
        return 0, _read_first(known(given, _FIRST_KEYS, path), path)
    if given.get("ok") is False:
        return 0, _read_error(known(given, _ERROR_KEYS, path), path)
    raise InvalidRequest.of_field(path, "must have ok, chunk, progress or final")


def _chunk(seq: int, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"chunk": {"seq": seq, "type": kind, **body}}


def _first(meta: pb.ResultMeta, _: int) -> dict[str, Any]:
    spelled = SPELLING.fields(meta)
    return {"ok": True, "streaming": True, "session_id": spelled.pop("session_id", ""), "meta": spelled}


_WRITERS: Mapping[str, Callable[[Any, int], dict[str, Any]]] = {
    "meta": _first,
    "delta": lambda delta, seq: _chunk(seq, "delta", {"field": delta.field, "delta": delta.text}),
    "snapshot": lambda snapshot, seq: _chunk(seq, "snapshot", {"data": _data(snapshot)}),
    "progress": lambda progress, seq: {"progress": {"seq": seq, **SPELLING.fields(progress)}},
    "final": lambda final, _: _final(final.meta, _data(final), final),
    "done": lambda done, _: _final(pb.ResultMeta(), None, done),
    "error": lambda status, _: error_object(MeshError.from_status(status)),
}


def _data(part: pb.Snapshot | pb.Final) -> Any:
    return SPELLING.write(part.data) if part.HasField("data") else None


def _final(meta: pb.ResultMeta, data: Any, part: pb.Final | pb.Done) -> dict[str, Any]:
    usage = SPELLING.write(part.usage) if part.HasField("usage") else None
    return {"final": True, "meta": SPELLING.fields(meta), "data": data, "usage": usage}


def _seq(given: Mapping[str, Any], path: str) -> int:
    seq = given.get("seq")
    if type(seq) is not int or not 0 <= seq < 2**64:
        raise InvalidRequest.of_field(at(path, "seq"), "must be the sequence of an event")
    return seq


def _read_chunk(value: Any, path: str) -> tuple[int, pb.Chunk | Control]:
    given = as_object(value, path)
    match given.get("type"):
        case "delta":
            known(given, frozenset({"seq", "type", "field", "delta"}), path)
            delta = {"field": given.get("field", ""), "text": given.get("delta", "")}
            return _seq(given, path), pb.Chunk(delta=SPELLING.read(delta, pb.Delta, path))
        case "snapshot":
            known(given, frozenset({"seq", "type", "data"}), path)
            snapshot = {"data": given.get("data")}
            return _seq(given, path), pb.Chunk(snapshot=SPELLING.read(snapshot, pb.Snapshot, path))
        case str(name) if control := _CONTROL.get(name):
            frame = control()
            SPELLING.read_fields(given, frame, path, _SEQ | {"type"})
            return _seq(given, path), frame
        case kind:
            known(given, frozenset({"seq", "type", "chunk"}), path)
            chunk: pb.Chunk = SPELLING.read(given.get("chunk"), pb.Chunk, at(path, "chunk"))
            if chunk.WhichOneof("payload") != kind:
                raise InvalidRequest.of_field(at(path, "type"), "must be the kind of the chunk")
            return _seq(given, path), chunk


def _read_first(given: Mapping[str, Any], path: str) -> pb.Chunk:
    meta = as_object(given.get("meta", {}), at(path, "meta"))
    return pb.Chunk(meta=SPELLING.read({"session_id": given.get("session_id", ""), **meta}, pb.ResultMeta, path))


def _read_final(given: Mapping[str, Any], path: str) -> pb.Chunk:
    meta = SPELLING.read(given.get("meta", {}), pb.ResultMeta, at(path, "meta"))
    usage = given.get("usage")
    spent = SPELLING.read(usage, pb.Usage, at(path, "usage")) if usage is not None else None
    data = given.get("data")
    if data is None and not meta.ByteSize():
        return pb.Chunk(done=pb.Done(usage=spent))
    read: pb.Final = SPELLING.read({"data": data}, pb.Final, path)
    return pb.Chunk(final=pb.Final(meta=meta if meta.ByteSize() else None, data=read.data, usage=spent))


def _read_error(given: Mapping[str, Any], path: str) -> pb.Chunk:
    error = known(given.get("error"), frozenset({"code", "message"}), at(path, "error"))
    code, message = error.get("code"), error.get("message", "")
    if not isinstance(code, str) or not isinstance(message, str):
        raise InvalidRequest.of_field(at(path, "error"), "must have a code and a message, both text")
    numbers = {f"E{number}": name for name, number in ErrorReason.items() if number >= 1000}
    reason = numbers.get(code, _REASON + code).removeprefix(_REASON)
    try:
        status = status_pb2.Status(message=message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    except ValueError:
        raise InvalidRequest.of_field(at(path, "error"), "must be text that UTF-8 can carry") from None
    return pb.Chunk(error=MeshError.from_status(status).to_status())
