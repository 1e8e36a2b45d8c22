"""Answers of models as KServe v2 spells them: JSON, and behind it the bytes of the outputs that are wanted as bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mediamesh.inference.rest.elements import elements_of
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb
    from mediamesh.inference.rest.requests import RestRequest

__all__ = ["flat", "infer_answer", "pieces", "plain_parameters"]

# Larger messages cost no less for each byte, and hold more of an answer back.
_PIECE_BYTES = 256 * 1024


def infer_answer(response: pb.ModelInferResponse, wanted: RestRequest) -> tuple[bytes, list[bytes]]:
    """Return the JSON of an answer, and what stands behind it.

    Raises:
        MeshError: JSON cannot spell an output.
    """
    outputs, binary = [], []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        spelled: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        parameters = plain_parameters(output.parameters)
        if "shared_memory_region" not in parameters:
            if wanted.binary.get(output.name, wanted.all_binary):
                parameters["binary_data_size"] = len(raw)
                binary.append(raw)
            else:
                spelled["data"] = _elements(response, output, raw)
        outputs.append(spelled | ({"parameters": parameters} if parameters else {}))
    head: dict[str, Any] = {"id": response.id} if response.id else {}
    head |= {"model_name": response.model_name, "model_version": response.model_version}
    parameters = plain_parameters(response.parameters)
    head |= ({"parameters": parameters} if parameters else {}) | {"outputs": outputs}
    return json.dumps(head, separators=(",", ":")).encode(), binary


def flat(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Return an answer as one flat object: a key for each output, whose only element stands there bare.

    Raises:
        MeshError: JSON cannot spell an output.
    """
    spelled: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    spelled |= {"id": response.id} if response.id else {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        elements = _elements(response, output, raw)
        spelled[output.name] = elements[0] if len(elements) == 1 else elements
    return spelled


def pieces(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bytes of parts in pieces, so that little of them waits for a slow reader; one at least."""
    piece = bytearray()
    is_begun = False
    for part in parts:
        left = memoryview(part)
        while left:
            room = _PIECE_BYTES - len(piece)
            piece += left[:room]
            left = left[room:]
            if len(piece) == _PIECE_BYTES:
                yield bytes(piece)
                is_begun = True
                piece.clear()
    if piece or not is_begun:
        yield bytes(piece)


def plain_parameters(parameters: Any) -> dict[str, Any]:
    """Return parameters as JSON's values."""
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in sorted(parameters.items()))
    return {name: getattr(value, kind) for name, value, kind in chosen if kind}


def _elements(
    response: pb.ModelInferResponse, output: pb.ModelInferResponse.InferOutputTensor, raw: bytes
) -> list[Any]:
    try:
        return elements_of(output.datatype, output.shape, raw)
    except ValueError as error:
        raise MeshError(f"Model {response.model_name}: output {output.name!r} {error}.") from error
