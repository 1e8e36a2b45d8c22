"""The RPCs of Triton's extensions: shared memory, log settings, trace settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.protocol.callers import is_local
from mediamesh.inference.protocol.log_settings import log_response, log_values
from mediamesh.inference.protocol.trace_settings import TraceSettings
from mediamesh.wire.errors import NotFound, NotImplementedByServer

if TYPE_CHECKING:
    import grpc

    from mediamesh.inference.protocol.log_settings import LogSettings
    from mediamesh.inference.protocol.shared_memory import SharedMemory

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["EXTENSIONS", "ExtensionsServicer"]

# As Triton names them in ServerMetadata.
EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
    # Ours: a request on a stream in the order of readiness is taken back by one with its id and this parameter.
    "mediamesh_cancel",
)


class ExtensionsServicer:
    """Answers for what the whole server has, beside its models.

    Args:
        memory: The regions of shared memory.
        logs: What is written to the log.
    """

    def __init__(self, memory: SharedMemory, logs: LogSettings) -> None:
        self._memory = memory
        self._logs = logs
        self._traces = TraceSettings()

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """List regions of shared memory."""
        return self._memory.status(request.name)

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region of shared memory, for callers on this host."""
        self._memory.register(request, is_local=is_local(context))
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget a region of shared memory, or all."""
        self._memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        """List regions of CUDA memory: there are none."""
        if request.name:
            raise NotFound(f"There is no CUDA memory region {request.name!r}.")
        return pb.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, context: Context
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Refuse a region of CUDA memory."""
        raise NotImplementedByServer(
            "This server maps no CUDA memory; send tensors in the request, or in system shared memory."
        )

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Forget regions of CUDA memory, of which there are none."""
        return pb.CudaSharedMemoryUnregisterResponse()

    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:
        """Change what is logged, and return all log settings."""
        return log_response(self._logs.change(log_values(request)))

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:
        """Change what is traced, and return all trace settings."""
        given = {name: list(value.value) for name, value in request.settings.items()}
        response = pb.TraceSettingResponse()
        for name, values in self._traces.change(given, request.model_name).items():
            response.settings[name].value.extend(values)
        return response
