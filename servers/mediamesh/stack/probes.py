"""Probes: each returns when the program answers, and raises while it does not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["NotReady", "bucket_exists", "grpc_serving", "http_request", "http_status", "pong"]


class NotReady(Exception):
    """The program answers, and says that it is not ready."""


async def pong(port: int) -> None:
    """Ask a Valkey server on 127.0.0.1 for PONG."""
    async with _connection("127.0.0.1", port) as (reader, writer):
        writer.write(b"PING\r\n")
        if not (answer := await reader.readline()).startswith(b"+PONG"):
            raise NotReady(answer.decode(errors="replace").strip())


async def http_request(method: str, url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return status and raw body of the answer to a request without a body."""
    parts = urlsplit(url)
    fields = {"Host": parts.netloc, "Content-Length": "0", "Connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    async with _connection(parts.hostname or "", parts.port or 80) as (reader, writer):
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        line = await reader.readline()
        if not line.startswith(b"HTTP/"):
            raise NotReady("the connection was closed without an answer")
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(line.split()[1]), body.decode(errors="replace")


async def http_status(url: str, *, wanted: int = 200) -> None:
    """Ask for a page and expect its status."""
    status, _ = await http_request("GET", url)
    if status != wanted:
        raise NotReady(f"{url} answers {status}")


async def bucket_exists(endpoint: str, bucket: str, *, access_key: str, secret_key: str) -> None:
    """Ask an S3 endpoint for a bucket, signed with Signature Version 4.

    A store that answers may still be creating its bucket; without a signature it tells nobody which buckets exist.
    See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
    """
    host = urlsplit(endpoint).netloc
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    empty = hashlib.sha256(b"").hexdigest()
    signed = "host;x-amz-content-sha256;x-amz-date"
    request = f"HEAD\n/{bucket}\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{now}\n\n{signed}\n{empty}"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for step in (*scope.split("/"), text):
        key = hmac.digest(key, step.encode(), "sha256")
    status, _ = await http_request(
        "HEAD",
        f"{endpoint}/{bucket}",
        {
            "x-amz-content-sha256": empty,
            "x-amz-date": now,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={signed}, "
            f"Signature={key.hex()}",
        },
    )
    if status != 200:
        raise NotReady(f"bucket {bucket} answers {status}")


async def grpc_serving(address: str, service: str = "") -> None:
    """Ask a gRPC server for its health."""
    # A pool of its own: a channel shared with an earlier probe would sit out that one's reconnect backoff.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(request, timeout=1)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotReady(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


@asynccontextmanager
async def _connection(host: str, port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
