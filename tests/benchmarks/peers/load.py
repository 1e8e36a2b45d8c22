"""The load generator, the same for every peer, in a process of its own; prints JSON.

It sends one request again and again in a closed loop, over gRPC on one connection or over HTTP/1.1 on one for each
caller, by hand: the libraries would cost more than the servers under test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mediamesh.bench.load import closed_loop
from tests.benchmarks.streaming.http2 import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.bench.senders import Send

__all__ = ["grpc_sender", "http_sender"]

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT_SECONDS = 30


@asynccontextmanager
async def grpc_sender(target: str, body: bytes) -> AsyncGenerator[Send]:
    """Yield what calls ModelInfer."""
    connection = await Connection.to(target)

    async def send() -> str:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await connection.unary(METHOD, body)
        except (RuntimeError, TimeoutError) as error:
            return type(error).__name__
        return "OK"

    try:
        yield send
    finally:
        connection.close()


@asynccontextmanager
async def http_sender(target: str, path: str, media_type: str, body: bytes, in_flight: int) -> AsyncGenerator[Send]:
    """Yield what posts a body; answers are told by their Content-Length."""
    host, _, port = target.rpartition(":")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(in_flight):
        free.put_nowait(await asyncio.open_connection(host, int(port)))

    async def send() -> str:
        reader, writer = await free.get()
        writer.write(request)
        await writer.drain()
        status = await reader.readline()
        length = 0
        while (line := await reader.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        await reader.readexactly(length)
        free.put_nowait((reader, writer))
        return "OK" if b" 200 " in status else status.decode().strip()

    try:
        yield send
    finally:
        while not free.empty():
            free.get_nowait()[1].close()


async def run(options: argparse.Namespace) -> None:
    """Load the server and print what was seen."""
    body = options.body.read_bytes()
    begin, cpu = time.perf_counter(), time.process_time()
    sender = (
        grpc_sender(options.target, body)
        if options.wire == "grpc"
        else http_sender(options.target, options.path, options.media_type, body, options.in_flight)
    )
    async with sender as send:
        seen = await closed_loop(
            send, options.in_flight, warm_up=options.warm_up, seconds=options.seconds, tell=lambda _: None
        )
    print(
        json.dumps(
            {
                "latencies": seen.latencies,
                "per_s": seen.throughput,
                "failed": dict(seen.errors),
                "client_cores": (time.process_time() - cpu) / (time.perf_counter() - begin),
            }
        )
    )


def main() -> None:
    """Parse the command line and load the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--wire", choices=["grpc", "http"], required=True)
    parser.add_argument("--path", default="")
    parser.add_argument("--media-type", default="application/octet-stream")
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
