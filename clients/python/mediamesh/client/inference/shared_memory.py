"""Tensors in memory that client and server share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

__all__ = ["SharedTensor"]


class SharedTensor:
    """A tensor of a shared region."""

    def describe(self, tensor: pb.ModelInferRequest.InferInputTensor) -> None:
        """Say where it lies."""
        raise NotImplementedError
