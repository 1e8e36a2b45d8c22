"""What RepositoryModelLoad and RepositoryModelUnload ask for beside the name of a model: Triton's parameters."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from mediamesh.inference.repository.source import Override
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

__all__ = ["check_unload", "override_of"]

_CONFIG = "config"
_FILE = "file:"
_DEPENDENTS = "unload_dependents"


def override_of(request: pb.RepositoryModelLoadRequest) -> Override:
    """Return what a request wants loaded in place of the repository's files.

    Raises:
        InvalidRequest: a parameter is unknown, or of the wrong type.
    """
    if request.repository_name:
        raise InvalidRequest.of_field(
            "repository_name", f"there is no repository {request.repository_name!r}; this server's has no name"
        )
    config = ""
    files: dict[str, bytes] = {}
    for name, parameter in request.parameters.items():
        if name == _CONFIG:
            config = _text(name, parameter)
        elif name.startswith(_FILE):
            files[name.removeprefix(_FILE)] = _content(name, parameter)
        else:
            raise _invalid(name, "is not known; expected config, or file: with a path")
    return Override(config, files)


def check_unload(request: pb.RepositoryModelUnloadRequest) -> None:
    """Refuse what is not known; no model here depends on another, so ``unload_dependents`` changes nothing.

    Raises:
        InvalidRequest: a parameter is unknown, or of the wrong type.
    """
    for name, parameter in request.parameters.items():
        if name != _DEPENDENTS:
            raise _invalid(name, f"is not known; expected {_DEPENDENTS}")
        if parameter.WhichOneof("parameter_choice") != "bool_param":
            raise _invalid(name, "expected a bool_param")


def _text(name: str, parameter: pb.ModelRepositoryParameter) -> str:
    if parameter.WhichOneof("parameter_choice") != "string_param" or not parameter.string_param:
        raise _invalid(name, "expected a string_param that holds JSON")
    return parameter.string_param


def _content(name: str, parameter: pb.ModelRepositoryParameter) -> bytes:
    """Return the content of a file: bytes as they are, a text out of base64, which is what JSON holds."""
    match parameter.WhichOneof("parameter_choice"):
        case "bytes_param":
            return parameter.bytes_param
        case "string_param":
            try:
                return base64.b64decode(parameter.string_param, validate=True)
            except (binascii.Error, ValueError) as error:
                raise _invalid(name, f"is no base64: {error}") from None
        case _:
            raise _invalid(name, "expected bytes_param, or string_param with base64")


def _invalid(name: str, text: str) -> InvalidRequest:
    # A name may be as long as a message.
    return InvalidRequest.of_field(f"parameters[{name[:200]}]", text)
