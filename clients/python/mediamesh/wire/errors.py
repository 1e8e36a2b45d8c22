"""The one exception tree of the mesh; a server raises it, the boundary spells it as a status, a client raises it again.

MeshError                         INTERNAL             (E-code)
├── InvalidRequest                INVALID_ARGUMENT
│   ├── InvalidFlow               INVALID_ARGUMENT
│   ├── UnsupportedMediaType      INVALID_ARGUMENT     E1010
│   ├── MediaTooLarge             INVALID_ARGUMENT     E1011
│   └── MediaDecodeFailed         INVALID_ARGUMENT     E1013
├── NotFound                      NOT_FOUND
├── AlreadyExists                 ALREADY_EXISTS
├── FailedPrecondition            FAILED_PRECONDITION
│   └── MediaFetchFailed          FAILED_PRECONDITION  E1012
├── OutOfRange                    OUT_OF_RANGE
├── Overloaded                    RESOURCE_EXHAUSTED
├── DeadlineExceeded              DEADLINE_EXCEEDED
│   └── StreamTimeout             DEADLINE_EXCEEDED    E2011
├── Cancelled                     CANCELLED
├── Unavailable                   UNAVAILABLE
├── NotImplementedByServer        UNIMPLEMENTED
│   ├── StreamingNotSupported     UNIMPLEMENTED        E4010
│   └── MultimodalNotSupported    UNIMPLEMENTED        E4011
├── AgentFailed                   ABORTED
├── StreamInterrupted             ABORTED              E2010
├── ChecksumMismatch              DATA_LOSS
├── PermissionDenied              PERMISSION_DENIED
└── Unauthenticated               UNAUTHENTICATED

The form on the wire is AIP-193's: a ``google.rpc.Status`` with exactly one ErrorInfo (domain ``mediamesh.dev``), then
what helps: BadRequest for fields, RetryInfo where trying again makes sense.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from mediamesh.api.errors.v1 import error_reason_pb2
from mediamesh.api.errors.v1.error_reason_pb2 import ErrorReason

__all__ = [
    "DOMAIN",
    "AgentFailed",
    "AlreadyExists",
    "Cancelled",
    "ChecksumMismatch",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidFlow",
    "InvalidRequest",
    "MediaDecodeFailed",
    "MediaFetchFailed",
    "MediaTooLarge",
    "MeshError",
    "MultimodalNotSupported",
    "NotFound",
    "NotImplementedByServer",
    "OutOfRange",
    "Overloaded",
    "PermissionDenied",
    "StreamInterrupted",
    "StreamTimeout",
    "StreamingNotSupported",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMediaType",
]

DOMAIN = "mediamesh.dev"
_CODE_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class MeshError(Exception):
    """An error with a place on the wire, whatever text made it: what UTF-8 cannot carry stands there as its escape.

    Args:
        text: One sentence for people: what is wrong, and what would be right.
        details: Further ``google.rpc`` detail messages.
        metadata: Names and limits for programs; becomes ErrorInfo.metadata.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[ErrorReason.ValueType] = error_reason_pb2.ERROR_REASON_INTERNAL

    def __init__(self, text: str, *details: message.Message, **metadata: object) -> None:
        self.text = _carried(text)
        super().__init__(self.text)
        self.details = details
        self.metadata = {name: _carried(str(value)) for name, value in metadata.items()}

    def to_status(self) -> status_pb2.Status:
        """Return the error as it travels."""
        info = error_details_pb2.ErrorInfo(reason=_reason_name(self.reason), domain=DOMAIN, metadata=self.metadata)
        if self.reason >= 1000:
            info.metadata["code"] = f"E{self.reason}"
        status = status_pb2.Status(code=self.code.value[0], message=self.text)
        status.details.extend(_pack(detail) for detail in (info, *self.details))
        return status

    @staticmethod
    def from_status(status: status_pb2.Status) -> MeshError:
        """Return the error that a status spells; the nearest class when the reason is not ours."""
        info = error_details_pb2.ErrorInfo()
        details = [_unpack(packed) for packed in status.details if not _is_read(packed, info)]
        code = _CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
        kind = _BY_REASON.get(info.reason) if info.domain == DOMAIN else None
        metadata = {name: value for name, value in info.metadata.items() if name != "code"}
        return (kind or _BY_CODE.get(code, MeshError))(status.message, *details, **metadata)

    @property
    def number(self) -> str:
        """The number of the error, such as ``E1010``; empty where none is assigned."""
        return f"E{self.reason}" if self.reason >= 1000 else ""

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Field and description of every field violation."""
        return [
            (violation.field, violation.description)
            for detail in self.details
            if isinstance(detail, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        ]

    @property
    def retry_after(self) -> float | None:
        """Seconds after which trying again makes sense; None when nothing is said."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                # Not by a timedelta: whoever made the status may have put more in than that holds.
                return detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
        return None


class InvalidRequest(MeshError):
    """The request breaks a rule of its fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = error_reason_pb2.ERROR_REASON_INVALID_REQUEST

    @classmethod
    def of_field(cls, field: str, description: str, **metadata: object) -> Self:
        """Return the error for one field; its text names the field too."""
        return cls.of_fields([(field, description)], **metadata)

    @classmethod
    def of_fields(cls, violations: Iterable[tuple[str, str]], **metadata: object) -> Self:
        """Return the error for several fields, each a pair of field path and description."""
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=_carried(field), description=_carried(description))
        text = "; ".join(
            f"{violation.field}: {violation.description}" if violation.field else violation.description
            for violation in bad.field_violations
        )
        return cls(text, bad, **metadata)


class InvalidFlow(InvalidRequest):
    """A flow does not pass its static check."""

    reason = error_reason_pb2.ERROR_REASON_INVALID_FLOW


class UnsupportedMediaType(InvalidRequest):
    """The media type is not accepted, or differs from the declared one."""

    reason = error_reason_pb2.ERROR_REASON_UNSUPPORTED_MEDIA_TYPE


class MediaTooLarge(InvalidRequest):
    """The media exceeds a limit of bytes, pixels or seconds."""

    reason = error_reason_pb2.ERROR_REASON_MEDIA_TOO_LARGE


class MediaDecodeFailed(InvalidRequest):
    """The media is damaged, or not what its header says."""

    reason = error_reason_pb2.ERROR_REASON_MEDIA_DECODE_FAILED


class NotFound(MeshError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = error_reason_pb2.ERROR_REASON_NOT_FOUND


class AlreadyExists(MeshError):
    """What the request would create exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = error_reason_pb2.ERROR_REASON_ALREADY_EXISTS


class FailedPrecondition(MeshError):
    """The state of the thing named does not allow the call."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = error_reason_pb2.ERROR_REASON_FAILED_PRECONDITION


class MediaFetchFailed(FailedPrecondition):
    """The media could not be fetched from where it should be."""

    reason = error_reason_pb2.ERROR_REASON_MEDIA_FETCH_FAILED


class OutOfRange(MeshError):
    """A position lies outside of what is there."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = error_reason_pb2.ERROR_REASON_OUT_OF_RANGE


class Overloaded(MeshError):
    """A queue, a limit or a quota is full; the caller may try again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_OVERLOADED

    @classmethod
    def retry(cls, text: str, after_seconds: float, **metadata: object) -> Self:
        """Return the error with the time after which trying again makes sense."""
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(after_seconds * 1e9))
        return cls(text, error_details_pb2.RetryInfo(retry_delay=delay), **metadata)


class DeadlineExceeded(MeshError):
    """The deadline passed before the answer was there."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED


class StreamTimeout(DeadlineExceeded):
    """The stream outlived its time."""

    reason = error_reason_pb2.ERROR_REASON_STREAM_TIMEOUT


class Cancelled(MeshError):
    """The caller, or somebody for it, cancelled the work."""

    code = grpc.StatusCode.CANCELLED
    reason = error_reason_pb2.ERROR_REASON_CANCELLED


class Unavailable(MeshError):
    """A server that is needed cannot be reached."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = error_reason_pb2.ERROR_REASON_UNAVAILABLE


class NotImplementedByServer(MeshError):
    """The method or mode exists in the contract and not in this server."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = error_reason_pb2.ERROR_REASON_NOT_IMPLEMENTED


class StreamingNotSupported(NotImplementedByServer):
    """A streaming request to a module that answers at once only."""

    reason = error_reason_pb2.ERROR_REASON_STREAMING_NOT_SUPPORTED


class MultimodalNotSupported(NotImplementedByServer):
    """Media sent to a module that does not take it."""

    reason = error_reason_pb2.ERROR_REASON_MULTIMODAL_NOT_SUPPORTED


class AgentFailed(MeshError):
    """An agent broke the contract or failed while it ran."""

    code = grpc.StatusCode.ABORTED
    reason = error_reason_pb2.ERROR_REASON_AGENT_FAILED


class StreamInterrupted(MeshError):
    """The stream broke off; it can be resumed."""

    code = grpc.StatusCode.ABORTED
    reason = error_reason_pb2.ERROR_REASON_STREAM_INTERRUPTED


class ChecksumMismatch(MeshError):
    """Bytes arrived that do not match their checksum."""

    code = grpc.StatusCode.DATA_LOSS
    reason = error_reason_pb2.ERROR_REASON_CHECKSUM_MISMATCH


class PermissionDenied(MeshError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = error_reason_pb2.ERROR_REASON_PERMISSION_DENIED


class Unauthenticated(MeshError):
    """The caller is not known."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = error_reason_pb2.ERROR_REASON_UNAUTHENTICATED


def _reason_name(reason: ErrorReason.ValueType) -> str:
    return error_reason_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


def _carried(text: str) -> str:
    # JSON can spell half a character, in a key too, and errors name what they are about.
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _pack(detail: message.Message) -> any_pb2.Any:
    if isinstance(detail, any_pb2.Any):
        return detail
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _unpack(packed: any_pb2.Any) -> message.Message:
    for kind in (
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.DebugInfo,
        error_details_pb2.Help,
        error_details_pb2.LocalizedMessage,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RequestInfo,
        error_details_pb2.ResourceInfo,
    ):
        detail: message.Message = kind()
        if _is_read(packed, detail):
            return detail
    return packed


def _is_read(packed: any_pb2.Any, into: message.Message) -> bool:
    try:
        return bool(packed.Unpack(into))
    except message.DecodeError:
        # Somebody made the status by hand, and its bytes are no such message.
        into.Clear()
        return False


def _tree(root: type[MeshError]) -> Iterable[type[MeshError]]:
    yield root
    for branch in root.__subclasses__():
        yield from _tree(branch)


_BY_REASON: Mapping[str, type[MeshError]] = {_reason_name(kind.reason): kind for kind in _tree(MeshError)}
_BY_CODE: Mapping[grpc.StatusCode, type[MeshError]] = {
    # A connection that breaks in mid-stream arrives as UNKNOWN or INTERNAL from proxies; neither names a class of ours.
    **{kind.code: kind for kind in MeshError.__subclasses__() if kind is not StreamInterrupted},
}
