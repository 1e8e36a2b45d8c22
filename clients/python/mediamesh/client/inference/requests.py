"""Requests as they travel, made of numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client.inference.shared_memory import SharedTensor
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.infer_request import InferRequest, join
from mediamesh.wire.tensors import datatype_of, to_raw

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["CANCEL", "Inputs", "Outputs", "Parameters", "cancellation", "checked_size", "packed", "request_of"]

Inputs = Mapping[str, "Array | SharedTensor"]
# Names of the wanted outputs, or by name the number of best classes wanted, or where in shared memory it shall go.
Outputs = Sequence[str] | Mapping[str, "int | SharedTensor"]
Parameters = Mapping[str, bool | int | float | str]

# What a request says that takes back another one; and the extension by which servers tell that they know it.
CANCEL = "mediamesh_cancel"
# The client sets these itself, from arguments.
_OWN = frozenset(
    {
        CANCEL,
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
        "triton_enable_empty_final_response",
    }
)


def request_of(
    model: str,
    inputs: Inputs,
    *,
    version: str = "",
    outputs: Outputs = (),
    priority: int = 0,
    parameters: Parameters | None = None,
) -> InferRequest:
    """Return a request without an id.

    Raises:
        InvalidRequest: an array has a type that does not travel, or a parameter is one that an argument sets.
    """
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    raw: list[bytes | memoryview] = []
    for name, given in inputs.items():
        if isinstance(given, SharedTensor):
            given.describe(message.inputs.add(name=name))
            continue
        try:
            message.inputs.add(name=name, datatype=datatype_of(given), shape=given.shape)
        except ValueError as error:
            raise InvalidRequest.of_field(f"inputs[{name!r}]", str(error), model=model) from None
        raw.append(to_raw(given))
    for name in outputs:
        wanted = message.outputs.add(name=name)
        if isinstance(outputs, Mapping):
            _ask(wanted, outputs[name])
    if priority:
        message.parameters["priority"].uint64_param = priority
    for name, value in (parameters or {}).items():
        if name in _OWN:
            raise InvalidRequest.of_field(f"parameters[{name!r}]", "is set by the client itself", model=model)
        _set(message.parameters[name], value)
    return InferRequest(message, raw)


def packed(request: InferRequest, key: str, seconds: float | None, limit: int | None) -> bytes:
    """Return the request as it travels, under an id; the server drops it when so many seconds pass in its queue.

    Raises:
        InvalidRequest: it takes more bytes than the limit.
    """
    request.message.id = key
    if seconds is not None:
        request.message.parameters["timeout"].int64_param = max(1, round(seconds * 1e6))
    return checked_size(join(*request), limit)


def checked_size(data: bytes, limit: int | None) -> bytes:
    """Return a message that may be sent; gRPC would fail one that may not, and with it whatever shares its call.

    Raises:
        InvalidRequest: it takes more bytes than the limit.
    """
    if limit is not None and len(data) > limit:
        raise InvalidRequest(
            f"The request takes {len(data)} bytes, more than the {limit} of a message, which is the setting "
            "max_message_bytes of the client or of its channel.",
            limit_bytes=limit,
        )
    return data


def cancellation(model: str, key: str) -> bytes:
    """Return what takes a request back that was sent under an id; only servers of ours know it."""
    message = pb.ModelInferRequest(model_name=model, id=key)
    message.parameters[CANCEL].bool_param = True
    return message.SerializeToString()


def _ask(output: pb.ModelInferRequest.InferRequestedOutputTensor, how: int | SharedTensor) -> None:
    if isinstance(how, SharedTensor):
        how.place(output)
    else:
        output.parameters["classification"].int64_param = how


def _set(parameter: pb.InferParameter, value: bool | float | str) -> None:  # noqa: FBT001 - a parameter may be one
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case _:
            parameter.string_param = value
