"""One version of a model, loaded."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.fields import ONNXRUNTIME
from mediamesh.inference.onnx_backend import open_onnx
from mediamesh.inference.scheduling import Call, SequenceMark
from mediamesh.wire.errors import NotImplementedByServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    import numpy as np

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
    from mediamesh.inference.backend import Backend, Open
    from mediamesh.inference.settings import Settings
    from mediamesh.inference.shared_memory import SharedMemory
    from mediamesh.inference.tensors import Bound
    from mediamesh.wire.infer_request import InferRequest

    Array = np.ndarray[Any, Any]

__all__ = ["BACKENDS", "Model", "loaded"]

# By the field ``backend`` of config.pbtxt; nothing there means onnxruntime.
BACKENDS: dict[str, Open] = {ONNXRUNTIME: open_onnx}


@asynccontextmanager
async def loaded(
    directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings
) -> AsyncGenerator[Model]:
    """Load a version of a model for as long as the block lasts.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    open_backend = BACKENDS[config.backend or ONNXRUNTIME]
    async with open_backend(directory, version, config, settings) as backend:
        yield Model(backend, version)


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model, ready to run.

    Attributes:
        backend: What runs it.
        version: Its version.
    """

    backend: Backend
    version: int

    @property
    def config(self) -> config_pb.ModelConfig:
        """Its configuration, complete."""
        return self.backend.config

    @property
    def name(self) -> str:
        """Its name."""
        return self.backend.config.name

    @property
    def decoupled(self) -> bool:
        """Whether a request may have any number of answers."""
        return self.config.model_transaction_policy.decoupled

    async def infer(
        self, request: InferRequest, seconds: float | None, memory: SharedMemory | None = None
    ) -> pb.ModelInferResponse:
        """Run a request; cancelling it takes it out of the queue.

        Args:
            request: The request.
            seconds: Until the caller's deadline; the request's own ``timeout`` counts as well.
            memory: Where its tensors may lie.

        Raises:
            InvalidRequest: the request does not fit the model.
            NotImplementedByServer: the model is decoupled: its answers need a stream.
            Overloaded: the queue is full.
            DeadlineExceeded: the time passed in the queue.
            MeshError: the model failed.
        """
        if self.decoupled:
            raise NotImplementedByServer(
                f"Model {self.name} is decoupled: a request may have any number of answers; use ModelStreamInfer.",
                model=self.name,
            )
        bound = self.backend.signature.bind(request, memory)
        arrays = await self.backend.scheduler.run(self._call(request.message, bound, seconds))
        return self._response(request.message, bound, arrays)

    async def answers(
        self, request: InferRequest, seconds: float | None, memory: SharedMemory | None = None
    ) -> AsyncGenerator[pb.ModelInferResponse]:
        """Yield the answers to a request of a decoupled model as they come; raises what :meth:`infer` does."""
        bound = self.backend.signature.bind(request, memory)
        async for arrays in self.backend.scheduler.stream(self._call(request.message, bound, seconds)):
            yield self._response(request.message, bound, arrays)

    def metadata(self) -> pb.ModelMetadataResponse:
        """Describe the tensors."""
        tensor = pb.ModelMetadataResponse.TensorMetadata
        inputs, outputs = (
            [tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs.values()]
            for specs in (self.backend.signature.inputs, self.backend.signature.outputs)
        )
        return pb.ModelMetadataResponse(
            name=self.config.name, platform=self.config.platform, inputs=inputs, outputs=outputs
        )

    def _response(self, message: pb.ModelInferRequest, bound: Bound, arrays: list[Array]) -> pb.ModelInferResponse:
        return self.backend.signature.response(message, str(self.version), bound, arrays)

    def _call(self, message: pb.ModelInferRequest, bound: Bound, seconds: float | None) -> Call:
        wait = self._longest_wait(message, seconds)
        if not message.parameters:
            return Call(inputs=bound.inputs, outputs=bound.outputs, items=bound.items, seconds=wait)
        return Call(
            inputs=bound.inputs,
            outputs=bound.outputs,
            items=bound.items,
            seconds=wait,
            priority=_number(message.parameters, "priority"),
            sequence=_sequence(message.parameters),
            parameters=message.parameters,
        )

    def _longest_wait(self, message: pb.ModelInferRequest, seconds: float | None) -> float | None:
        """Return the shortest of the limits that apply, in seconds."""
        policy = self.config.dynamic_batching.default_queue_policy
        limits = [] if seconds is None else [seconds]
        if policy.default_timeout_microseconds:
            limits.append(policy.default_timeout_microseconds / 1e6)
        overridable = policy.allow_timeout_override or not policy.default_timeout_microseconds
        if overridable and (microseconds := _number(message.parameters, "timeout")):
            limits.append(microseconds / 1e6)
        return min(limits, default=None)


def _sequence(parameters: Mapping[str, pb.InferParameter]) -> SequenceMark | None:
    key = _number(parameters, "sequence_id") or (
        parameters["sequence_id"].string_param if "sequence_id" in parameters else ""
    )
    if not key:
        return None
    start, end = (name in parameters and parameters[name].bool_param for name in ("sequence_start", "sequence_end"))
    return SequenceMark(key, start=start, end=end)


def _number(parameters: Mapping[str, pb.InferParameter], name: str) -> int:
    given = parameters.get(name)
    return (given.int64_param or given.uint64_param) if given is not None else 0
