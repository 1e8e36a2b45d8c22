"""One version of a model, loaded."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.configuration.fields import DECODER, ONNXRUNTIME
from mediamesh.inference.onnx.backend import open_onnx
from mediamesh.inference.repository.uses import Uses
from mediamesh.inference.scheduling import Call
from mediamesh.inference.sequences.parameters import sequence_mark
from mediamesh.inference.sequences.scheduler import SequenceScheduler
from mediamesh.wire.errors import NotImplementedByServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import numpy as np

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
    from mediamesh.inference.backend import Backend, Open
    from mediamesh.inference.protocol.shared_memory import SharedMemory
    from mediamesh.inference.sequences.slots import Slots
    from mediamesh.inference.settings import Settings
    from mediamesh.inference.tensors import Bound
    from mediamesh.wire.infer_request import InferRequest

    Array = np.ndarray[Any, Any]

__all__ = ["BACKENDS", "Model", "loaded"]


def _open_decoder(
    directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings
) -> AbstractAsyncContextManager[Backend]:
    """Open a generative model; only servers that have one import what that needs."""
    from mediamesh.inference.generation.backend import open_decoder  # noqa: PLC0415 - as said

    return open_decoder(directory, version, config, settings)


# By the field ``backend`` of config.pbtxt; nothing there means onnxruntime.
BACKENDS: dict[str, Open] = {ONNXRUNTIME: open_onnx, DECODER: _open_decoder}


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


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version of a model, ready to run.

    Attributes:
        backend: What runs it.
        version: Its version.
        uses: The requests that it serves: it is not unloaded before they have their answers.
        earlier: The models on which sequences may be in progress whose next requests find this one in their place.
    """

    backend: Backend
    version: int
    uses: Uses = field(default_factory=Uses)
    earlier: list[Model] = field(default_factory=list)

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

    @property
    def sequences(self) -> Slots | None:
        """Its sequences in progress, where it has any at all."""
        scheduler = self.backend.scheduler
        return scheduler.slots if isinstance(scheduler, SequenceScheduler) else None

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
        if self.earlier and (model := self._begun_on(request.message)) is not None:
            return await model.infer(request, seconds, memory)
        if self.decoupled:
            raise NotImplementedByServer(
                f"Model {self.name} is decoupled: a request may have any number of answers; use ModelStreamInfer.",
                model=self.name,
            )
        with self.uses:
            bound = self.backend.signature.bind(request, memory)
            arrays = await self.backend.scheduler.run(self._call(request.message, bound, seconds))
            return self._response(request.message, bound, arrays)

    async def answers(
        self, request: InferRequest, seconds: float | None, memory: SharedMemory | None = None
    ) -> AsyncGenerator[pb.ModelInferResponse]:
        """Yield the answers to a request of a decoupled model as they come; raises what :meth:`infer` does."""
        with self.uses:
            bound = self.backend.signature.bind(request, memory)
            async with aclosing(self.backend.scheduler.stream(self._call(request.message, bound, seconds))) as answers:
                async for arrays in answers:
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

    def _begun_on(self, message: pb.ModelInferRequest) -> Model | None:
        """Return the earlier model on which a request's sequence is in progress: its state is there."""
        mark = sequence_mark(message.parameters)
        if mark is None or mark.start:
            return None
        for model in self.earlier:
            same = not message.model_version or model.version == self.version
            if same and model.sequences is not None and model.sequences.find(mark.key) is not None:
                return model
        return None

    def _response(self, message: pb.ModelInferRequest, bound: Bound, arrays: list[Array]) -> pb.ModelInferResponse:
        return self.backend.signature.response(message, str(self.version), bound, arrays)

    def _call(self, message: pb.ModelInferRequest, bound: Bound, seconds: float | None) -> Call:
        inputs, outputs, items = bound.inputs, bound.outputs, bound.items
        if not message.parameters:
            return Call(inputs=inputs, outputs=outputs, items=items, seconds=seconds, deadline=seconds)
        own = max(0, _number(message.parameters, "timeout")) / 1e6
        return Call(
            inputs=inputs,
            outputs=outputs,
            items=items,
            seconds=min((limit for limit in (own, seconds) if limit), default=seconds),
            deadline=seconds,
            timeout=own,
            priority=_number(message.parameters, "priority"),
            sequence=sequence_mark(message.parameters),
            parameters=message.parameters,
        )


def _number(parameters: Mapping[str, pb.InferParameter], name: str) -> int:
    given = parameters.get(name)
    return (given.int64_param or given.uint64_param) if given is not None else 0
