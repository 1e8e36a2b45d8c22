"""Errors as JSON objects: ``{"code":"NOT_FOUND","reason":"NOT_FOUND","message":"…","metadata":{}}``, both ways.

``code`` is gRPC's name of the status, ``reason`` the mesh's own, and ``metadata`` holds what programs need, such as
``"code":"E2011"`` for an error that has a number. Further details stand under ``details`` as protobuf spells them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import grpc
from google.protobuf import any_pb2, json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from mediamesh.wire.errors import DOMAIN, InvalidRequest
from mediamesh.wire.strict_json import at, known

__all__ = ["status_from_object", "status_object"]

_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}
_NUMBERS = {name: number for number, name in _NAMES.items()}
_KEYS = frozenset({"code", "reason", "message", "metadata", "details"})


def status_object(status: status_pb2.Status) -> dict[str, Any]:
    """Return a status as what ``strict_json.dumps`` takes."""
    info = error_details_pb2.ErrorInfo()
    others = [packed for packed in status.details if info.reason or not _unpack_own(packed, info)]
    spelled: dict[str, Any] = {
        "code": _NAMES.get(status.code, str(status.code)),
        "reason": info.reason,
        "message": status.message,
        "metadata": {name: info.metadata[name] for name in sorted(info.metadata)},
    }
    if others:
        spelled["details"] = [_detail_object(packed) for packed in others]
    return spelled


def status_from_object(value: Any, path: str = "") -> status_pb2.Status:
    """Return the status that an object spells.

    Raises:
        InvalidRequest: it spells none; names the path.
    """
    given = known(value, _KEYS, path)
    code = given.get("code")
    if not isinstance(code, str) or (code not in _NUMBERS and not code.isdecimal()):
        raise InvalidRequest.of_field(at(path, "code"), "must be the name of a gRPC status, such as NOT_FOUND")
    reason, message, metadata = given.get("reason", ""), given.get("message", ""), given.get("metadata", {})
    if not isinstance(reason, str) or not isinstance(message, str):
        raise InvalidRequest.of_field(at(path, "message"), "must be text, and so must reason")
    if not isinstance(metadata, dict) or not all(isinstance(entry, str) for entry in metadata.values()):
        raise InvalidRequest.of_field(at(path, "metadata"), "must be an object of texts")
    try:
        status = status_pb2.Status(code=_NUMBERS[code] if code in _NUMBERS else int(code), message=message)
        if reason:
            info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
            status.details.add().Pack(info)
    except ValueError:
        raise InvalidRequest.of_field(path, "must be text that UTF-8 can carry, and a code of 32 bits") from None
    details = given.get("details", [])
    if not isinstance(details, list):
        raise InvalidRequest.of_field(at(path, "details"), "must be a list")
    status.details.extend(_detail(entry, at(at(path, "details"), index)) for index, entry in enumerate(details))
    return status


def _unpack_own(packed: any_pb2.Any, info: error_details_pb2.ErrorInfo) -> bool:
    found = error_details_pb2.ErrorInfo()
    try:
        if not packed.Unpack(found) or found.domain != DOMAIN or not found.reason:
            return False
    except DecodeError:
        # Bytes that are no such message, in a status that somebody made by hand.
        return False
    info.CopyFrom(found)
    return True


def _detail_object(packed: any_pb2.Any) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(packed)
    except (TypeError, ValueError, KeyError, DecodeError, json_format.Error):
        # A type that is not known here, bytes that are none of it, or a value that JSON has not.
        return {"@type": packed.type_url, "bytes": base64.b64encode(packed.value).decode()}


def _detail(value: Any, path: str) -> any_pb2.Any:
    if isinstance(value, dict) and value.keys() == {"@type", "bytes"}:
        try:
            return any_pb2.Any(type_url=value["@type"], value=base64.b64decode(value["bytes"], validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise InvalidRequest.of_field(path, "must have a type and base64 bytes") from None
    try:
        return json_format.ParseDict(value, any_pb2.Any())
    except (json_format.ParseError, TypeError, ValueError, AttributeError, SystemError):
        # The last is what protobuf makes of a key that is half a character.
        raise InvalidRequest.of_field(path, "must be a detail as protobuf spells it") from None
