"""Errors as HTTP: a status, and the body ``{"error": "a sentence"}`` that clients of Triton and KServe read."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import grpc
from opentelemetry import trace

from mediamesh.wire.errors import MediaTooLarge, MeshError, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STATUS_HEADER", "refusal"]

# The door makes it the status of the answer.
STATUS_HEADER = "mediamesh-http-status"
_LOG = logging.getLogger(__name__)
_BY_CODE: Mapping[grpc.StatusCode, HTTPStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
_BY_CLASS: Mapping[type[MeshError], HTTPStatus] = {
    MediaTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}


def refusal(error: Exception) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body that tell of an error; one that is none of ours is logged."""
    if not isinstance(error, MeshError):
        _LOG.error("a request over HTTP failed", exc_info=error)
        error = MeshError("The server failed; its log has the cause.")
    status = _BY_CLASS.get(type(error)) or _BY_CODE.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    # The call itself went well, so nothing else tells a trace.
    trace.get_current_span().set_attribute("http.response.status_code", int(status))
    headers = [(STATUS_HEADER, str(int(status)))]
    if error.retry_after is not None:
        headers.append(("retry-after", str(math.ceil(error.retry_after))))
    return headers, json.dumps({"error": error.text}, ensure_ascii=False).encode(errors="replace")
