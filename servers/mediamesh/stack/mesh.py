"""The programs of a mesh on one machine, and how they find each other."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING

from mediamesh.kit.process import SERVERS
from mediamesh.kit.settings import CommonSettings
from mediamesh.stack.envoy import Door, envoy, local_address
from mediamesh.stack.probes import grpc_serving, http_status
from mediamesh.stack.programs import SEAWEEDFS_PORTS, Program, seaweedfs, valkey
from mediamesh.stack.settings import UpSettings, own_ports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mediamesh.stack.folder import Folder

    _Ports = Mapping[str, Mapping[str, int]]

__all__ = ["programs"]

# What must be there before a server starts. What a server waits for by itself is not in here: its health says so, and
# the mesh is ready sooner when all start at once.
_NEEDS = {"streams": ("valkey",), "orchestrator": ("valkey",)}
# The server for WebSockets speaks HTTP/1.1, and is no part of a gRPC process.
_EDGE = "edge"


def programs(settings: UpSettings, folder: Folder, *, models: Path | None = None) -> list[Program]:
    """Return all programs, in the order in which they start; they stop in reverse.

    Args:
        settings: What is set about the mesh.
        folder: Where it keeps everything.
        models: The model repository to serve; that of the settings when None.
    """
    ports = folder.ports(_wanted_ports(settings))
    access_key, secret_key = folder.s3_keys()
    env = _environment(settings, ports, access_key, secret_key)
    env["inference"] = {"MEDIAMESH_INFERENCE_MODEL_REPOSITORY": str((models or settings.model_repository).absolute())}
    store = seaweedfs(
        ports=ports["seaweedfs"],
        data=folder.of("seaweedfs"),
        access_key=access_key,
        secret_key=secret_key,
        bucket=settings.s3_bucket,
        memory_mib=settings.s3_memory_mib,
    )
    return [
        valkey(port=ports["valkey"]["port"], data=folder.of("valkey"), fsync=settings.valkey_fsync),
        store,
        *(
            _server(name, replica, ports[replica], env[name])
            for name in SERVERS
            for replica in _replicas(settings, name)
        ),
        _server(_EDGE, _EDGE, ports[_EDGE], env[_EDGE]),
        envoy(_door(settings, ports, folder)),
    ]


def _replicas(settings: UpSettings, name: str) -> list[str]:
    """Return the names of the replicas of a server: ``streams``, ``streams-2`` and so on."""
    count = {
        "streams": settings.stream_replicas,
        "orchestrator": settings.orchestrator_replicas,
        "agents": settings.agent_replicas,
    }.get(name, 1)
    return [name, *(f"{name}-{number}" for number in range(2, count + 1))]


def _wanted_ports(settings: UpSettings) -> dict[str, dict[str, int | None]]:
    store = {part: getattr(settings, "s3_port" if part == "s3" else f"s3_{part}_port") for part in SEAWEEDFS_PORTS}
    servers: dict[str, dict[str, int | None]] = {_EDGE: own_ports(_EDGE)}
    for name in SERVERS:
        first, *others = _replicas(settings, name)
        servers[first] = own_ports(name)
        servers.update({other: {"port": None, "metrics": None} for other in others})
    return {
        "envoy": {"door": settings.port, "admin": settings.admin_port, "inside": settings.inside_port},
        "valkey": {"port": settings.valkey_port},
        "seaweedfs": store,
        **servers,
    }


def _server(name: str, replica: str, ports: Mapping[str, int], env: Mapping[str, str]) -> Program:
    """Return one of our servers, or one of its replicas, in a process of its own."""
    port, metrics_port = ports["port"], ports["metrics"]
    prefix = f"MEDIAMESH_{name.upper()}"
    variables = {f"{prefix}_PORT": port, f"{prefix}_METRICS_PORT": metrics_port}
    address = f"127.0.0.1:{port}"
    return Program(
        name=replica,
        argv=[sys.executable, "-m", f"mediamesh.{name}"],
        probe=partial(http_status, f"http://{address}/healthz") if name == _EDGE else partial(grpc_serving, address),
        env={f"{prefix}_HOST": "127.0.0.1", **{key: str(value) for key, value in variables.items()}, **env},
        ports=variables,
        needs=_NEEDS.get(name, ()),
    )


def _environment(settings: UpSettings, ports: _Ports, access_key: str, secret_key: str) -> dict[str, dict[str, str]]:
    """Return the variables of each server that tell it where the others are."""
    address = {name: f"127.0.0.1:{ports[name]['port']}" for name in SERVERS}
    valkey_url = f"redis://127.0.0.1:{ports['valkey']['port']}/0"
    return {
        "media": {
            "MEDIAMESH_MEDIA_ENDPOINT_URL": f"http://127.0.0.1:{ports['seaweedfs']['s3']}",
            "MEDIAMESH_MEDIA_ACCESS_KEY": access_key,
            "MEDIAMESH_MEDIA_SECRET_KEY": secret_key,
            "MEDIAMESH_MEDIA_BUCKET": settings.s3_bucket,
        },
        "streams": {
            "MEDIAMESH_STREAMS_VALKEY_URL": valkey_url,
            "MEDIAMESH_STREAMS_PUBLIC_URL": settings.public_url
            or f"ws://{local_address(settings.host)}:{settings.port}",
        },
        # By way of Envoy, which knows which replica is well: a call that meets one that died goes to the next.
        _EDGE: {
            "MEDIAMESH_EDGE_STREAMS_ADDRESS": f"127.0.0.1:{ports['envoy']['inside']}",
            "MEDIAMESH_EDGE_FLOWS_ADDRESS": f"127.0.0.1:{ports['envoy']['inside']}",
            "MEDIAMESH_EDGE_CORS_ORIGINS": settings.cors_origins,
        },
        "agents": {
            "MEDIAMESH_AGENTS_INFERENCE_ADDRESS": address["inference"],
            "MEDIAMESH_AGENTS_MEDIA_ADDRESS": address["media"],
        },
        "orchestrator": {
            "MEDIAMESH_ORCHESTRATOR_VALKEY_URL": valkey_url,
            "MEDIAMESH_ORCHESTRATOR_MEDIA_ADDRESS": address["media"],
            "MEDIAMESH_ORCHESTRATOR_STREAMS_ADDRESS": f"127.0.0.1:{ports['envoy']['inside']}",
            "MEDIAMESH_ORCHESTRATOR_AGENT_ADDRESSES": json.dumps(
                [f"127.0.0.1:{ports[replica]['port']}" for replica in _replicas(settings, "agents")]
                + settings.extra_agents
            ),
        },
    }


def _door(settings: UpSettings, ports: _Ports, folder: Folder) -> Door:
    common = CommonSettings.load()
    return Door(
        host=settings.host,
        port=settings.port,
        admin_port=ports["envoy"]["admin"],
        servers={
            name: [("127.0.0.1", ports[replica]["port"]) for replica in _replicas(settings, name)] for name in SERVERS
        },
        edge=[("127.0.0.1", ports[_EDGE]["port"])],
        inside_port=ports["envoy"]["inside"],
        template=settings.envoy_template,
        folder=folder.of("envoy"),
        access_log=folder.logs / "access.jsonl",
        web=settings.web.absolute(),
        cors_origins=settings.cors_origins,
        otlp_endpoint=common.otlp_endpoint,
        trace_ratio=common.trace_ratio,
        concurrency=settings.envoy_concurrency,
        drain_seconds=settings.drain_seconds,
    )
