"""What a server answered: tensors as numpy arrays, errors as the classes of the tree."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from mediamesh.wire.errors import Cancelled, DeadlineExceeded, MeshError, StreamInterrupted, Unavailable
from mediamesh.wire.infer_request import STATUS_PARAMETER
from mediamesh.wire.tensors import bf16_to_fp32, from_contents, from_raw

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

    Array = np.ndarray[Any, Any]

__all__ = ["Answer", "error_of", "is_answer", "is_final"]

_FINAL = "triton_final_response"
_NO_ANSWERS = (Cancelled, DeadlineExceeded, StreamInterrupted, Unavailable)


class Answer(dict[str, "Array"]):
    """The outputs of one answer by name; read-only. BYTES come as object arrays of bytes, BF16 as float32.

    Args:
        response: The answer.
        elsewhere: Outputs that lie in the caller's own memory, and are left out.

    Attributes:
        message: The answer as it travelled: the version that ran, parameters, and the tensors' names and shapes.
    """

    def __init__(self, response: pb.ModelInferResponse, elsewhere: Collection[str] = ()) -> None:
        super().__init__(_arrays(response, elsewhere))
        self.message = response


def is_answer(error: BaseException) -> bool:
    """Return whether an error tells what became of a request: a server, or this client, has something against it."""
    return isinstance(error, MeshError) and not isinstance(error, _NO_ANSWERS)


def is_final(response: pb.ModelInferResponse) -> bool | None:
    """Tell whether no more answers to the same request follow; None where the server does not say."""
    return response.parameters[_FINAL].bool_param if _FINAL in response.parameters else None


def error_of(response: pb.ModelStreamInferResponse) -> MeshError:
    """Return the error with its class and details where the server is ours, else with its sentence alone."""
    packed = response.infer_response.parameters.get(STATUS_PARAMETER)
    try:
        if packed is not None:
            return MeshError.from_status(status_pb2.Status.FromString(base64.b64decode(packed.string_param)))
    except (DecodeError, binascii.Error):
        pass
    return MeshError(response.error_message)


def _arrays(response: pb.ModelInferResponse, elsewhere: Collection[str]) -> dict[str, Array]:
    arrays, raw = {}, response.raw_output_contents
    # Triton sends an empty entry for an output that lies elsewhere.
    skips = len(raw) == len(response.outputs)
    contents = iter(raw)
    for output in response.outputs:
        if output.name in elsewhere:
            if skips:
                next(contents)
            continue
        if raw:
            array = from_raw(output.datatype, output.shape, next(contents))
        else:
            array = from_contents(output.datatype, output.shape, output.contents)
        arrays[output.name] = bf16_to_fp32(array) if output.datatype == "BF16" else array
    return arrays
