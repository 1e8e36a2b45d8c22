"""The whole contract of the mesh, for reflection and for proxies.

Reflection through a proxy is one conversation with one server, and the services behind the proxy are many. So every
server tells about all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from mediamesh.api.agent.v1 import agent_service_pb2
from mediamesh.api.flow.v1 import flow_edge_service_pb2, flow_service_pb2
from mediamesh.api.inference.v2 import inference_edge_service_pb2, inference_service_pb2
from mediamesh.api.media.v1 import media_service_pb2
from mediamesh.api.stream.v1 import stream_edge_service_pb2, stream_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.descriptor import FileDescriptor

__all__ = ["contract", "service_names"]

_FILES: Sequence[FileDescriptor] = (
    agent_service_pb2.DESCRIPTOR,
    flow_edge_service_pb2.DESCRIPTOR,
    flow_service_pb2.DESCRIPTOR,
    inference_edge_service_pb2.DESCRIPTOR,
    inference_service_pb2.DESCRIPTOR,
    media_service_pb2.DESCRIPTOR,
    stream_edge_service_pb2.DESCRIPTOR,
    stream_service_pb2.DESCRIPTOR,
)


def service_names() -> list[str]:
    """Return the full names of all services of the mesh, with health and reflection."""
    ours = [service.full_name for file in _FILES for service in file.services_by_name.values()]
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    return sorted([*ours, health, reflection.SERVICE_NAME])


def contract() -> descriptor_pb2.FileDescriptorSet:
    """Return the files of all services and all that they import, each after what it imports.

    The details of errors are among them: they travel as ``Any``, which is spelled in JSON only where its type is known.
    """
    files: dict[str, FileDescriptor] = {}
    _collect((*_FILES, error_details_pb2.DESCRIPTOR), files)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    return found


def _collect(wanted: Iterable[FileDescriptor], files: dict[str, FileDescriptor]) -> None:
    for file in wanted:
        if file.name not in files:
            _collect(file.dependencies, files)
            files[file.name] = file
