"""Requests about the server itself, from Triton's JSON: models to load, regions, settings."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.rest.elements import excerpt
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["log_settings", "region_of", "repository_parameters", "trace_settings"]


def region_of(name: str, given: Mapping[str, Any]) -> pb.SystemSharedMemoryRegisterRequest:
    """Return the region that an object with ``key``, ``offset`` and ``byte_size`` describes.

    Raises:
        InvalidRequest: one of them is missing or wrong.
    """
    key = given.get("key")
    if not isinstance(key, str) or not key.isprintable():
        raise InvalidRequest.of_field("key", f"region {name!r}: is {excerpt(key)}, expected a text")
    return pb.SystemSharedMemoryRegisterRequest(
        name=name, key=key, offset=_bytes(name, given, "offset", 0), byte_size=_bytes(name, given, "byte_size", None)
    )


def repository_parameters(given: Mapping[str, Any], where: str) -> dict[str, pb.ModelRepositoryParameter]:
    """Return the parameters of a request to load or unload a model; those named ``file:`` are in base64.

    Raises:
        InvalidRequest: one has a value of no type that there is.
    """
    parameters = {}
    described = given.get("parameters", {})
    if not isinstance(described, dict):
        raise InvalidRequest.of_field("parameters", f"{where}: is {excerpt(described)}, expected an object")
    for name, value in described.items():
        field = f"parameters[{name!r}]"
        if name.startswith("file:") and isinstance(value, str):
            try:
                parameters[name] = pb.ModelRepositoryParameter(bytes_param=base64.b64decode(value, validate=True))
            except (binascii.Error, ValueError):
                raise InvalidRequest.of_field(field, f"{where}: must be a file in base64") from None
        elif isinstance(value, bool):
            parameters[name] = pb.ModelRepositoryParameter(bool_param=value)
        elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            parameters[name] = pb.ModelRepositoryParameter(int64_param=value)
        elif isinstance(value, str):
            parameters[name] = pb.ModelRepositoryParameter(string_param=value)
        else:
            raise InvalidRequest.of_field(field, f"{where}: is {excerpt(value)}, expected a text, number or boolean")
    return parameters


def trace_settings(model: str, given: Mapping[str, Any]) -> pb.TraceSettingRequest:
    """Return the request for trace settings: texts, lists of texts, or null to take a setting back to its default.

    Raises:
        InvalidRequest: a value is none of these.
    """
    request = pb.TraceSettingRequest(model_name=model)
    for name, value in given.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
            raise InvalidRequest.of_field(name, f"is {excerpt(value)}, expected a text, a list of texts, or null")
        request.settings[name].value.extend(str(one) for one in values)
    return request


def log_settings(given: Mapping[str, Any]) -> pb.LogSettingsRequest:
    """Return the request for log settings.

    Raises:
        InvalidRequest: a value is neither a boolean, nor a number, nor a text.
    """
    request = pb.LogSettingsRequest()
    for name, value in given.items():
        match value:
            case bool():
                request.settings[name].bool_param = value
            case int() if 0 <= value < 1 << 32:
                request.settings[name].uint32_param = value
            case str():
                request.settings[name].string_param = value
            case _:
                raise InvalidRequest.of_field(name, f"is {excerpt(value)}, expected a boolean, a number or a text")
    return request


def _bytes(name: str, given: Mapping[str, Any], field: str, default: int | None) -> int:
    value = given.get(field, default)
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise InvalidRequest.of_field(field, f"region {name!r}: is {excerpt(value)}, expected a number of bytes")
    return value
