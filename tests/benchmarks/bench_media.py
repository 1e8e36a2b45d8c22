"""What the media server costs over S3 itself: pictures up and down through it, against plain aioboto3.

Both run in turns in the same run, on the same store, from the same process; pictures differ from each other, so that
none is known already, and one more upload of known bytes shows what keeping them once saves.
"""

from __future__ import annotations

import asyncio
import io
import os
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aioboto3
import psutil
from aiobotocore.config import AioConfig
from PIL import Image
from rich.console import Console
from rich.table import Table

from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.programs import SEAWEEDFS_PORTS, seaweedfs

SIZES = {"100 KB": (600, 450), "3 MB": (3600, 2400), "15 MB": (7600, 5700)}
ROUNDS = 8
KEYS = {"access_key": "bench-key", "secret_key": "bench-secret", "bucket": "media"}


def photo(size: tuple[int, int]) -> bytes:
    """Return a JPEG that no other is equal to, with about the detail of a photo."""
    noise = Image.frombytes("L", (size[0] // 4, size[1] // 4), os.urandom((size[0] // 4) * (size[1] // 4)))
    gradient = Image.linear_gradient("L").resize(size)
    out = io.BytesIO()
    Image.merge("RGB", (noise.resize(size), gradient, gradient.rotate(180))).save(out, "JPEG", quality=90)
    return out.getvalue()


@asynccontextmanager
async def server(endpoint_url: str):
    """Run the media server as a process; yields its process and a channel."""
    (port,) = free_ports(1)
    variables = {"endpoint_url": endpoint_url, "port": str(port), **KEYS}
    environment = {**os.environ, "MEDIAMESH_LOG_LEVEL": "warning"}
    environment |= {f"MEDIAMESH_MEDIA_{name.upper()}": value for name, value in variables.items()}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "mediamesh.media", env=environment)
    try:
        async with connect(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 20)
            yield psutil.Process(child.pid), channel
    finally:
        child.terminate()
        await child.wait()


class Meter:
    """Seconds and CPU seconds, here and in the server, of what was run under one name."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._all: dict[str, list[tuple[float, float, float]]] = {}

    async def run(self, name: str, work):
        """Wait for the work and note what it took."""
        wall, here, there = time.perf_counter(), time.process_time(), sum(self._process.cpu_times()[:2])
        result = await work
        took = time.perf_counter() - wall, time.process_time() - here, sum(self._process.cpu_times()[:2]) - there
        self._all.setdefault(name, []).append(took)
        return result

    def cells(self, name: str, megabytes: float) -> list[str]:
        """Return median latency and rate, and mean CPU here and in the server for one megabyte."""
        walls, here, there = zip(*self._all[name], strict=True)
        wall = statistics.median(walls)
        cpu = [f"{statistics.fmean(values) / megabytes * 1000:.1f}" for values in (here, there)]
        return [f"{wall * 1000:.1f}", f"{megabytes / wall:.0f}", *cpu]


async def compare(table: Table, label: str, size: tuple[int, int], s3, media: MediaClient, meter: Meter) -> None:
    """Add the rows of one size."""
    place = MediaPlace(workspace_id="bench", flow_id="f", execution_id="e", node_id="n", pin_name="p")
    image = MediaType.MEDIA_TYPE_IMAGE

    async def plain_download(key):
        found = await s3.get_object(Bucket="media", Key=key)
        async with found["Body"] as body:
            return b"".join([piece async for piece in body.content.iter_chunked(256 * 1024)])

    sizes = []
    for _ in range(ROUNDS):
        data, key = photo(size), f"plain/{uuid.uuid4().hex}"
        sizes.append(len(data) / 1e6)
        await meter.run(f"{label} up, aioboto3", s3.put_object(Bucket="media", Key=key, Body=data))
        value = await meter.run(f"{label} up, server", media.upload(data, media_type=image, place=place))
        await meter.run(f"{label} up again, server", media.upload(data, media_type=image, place=place))
        assert await meter.run(f"{label} down, aioboto3", plain_download(key)) == data
        assert await meter.run(f"{label} down, server", media.download(value.ref.url)) == data
    for way in ("up, aioboto3", "up, server", "up again, server", "down, aioboto3", "down, server"):
        table.add_row(label, way, *meter.cells(f"{label} {way}", statistics.fmean(sizes)))


async def main() -> None:
    """Start a store and a server, compare, and print."""
    table = Table("size", "way", "ms (median)", "MB/s", "client CPU ms/MB", "server CPU ms/MB")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports: dict[str, int] = dict(zip(SEAWEEDFS_PORTS, free_ports(len(SEAWEEDFS_PORTS)), strict=True))
        (folder / "data").mkdir()
        key, secret, bucket = KEYS.values()
        program = seaweedfs(ports=ports, data=folder / "data", access_key=key, secret_key=secret, bucket=bucket)
        await stack.enter_async_context(running(program, folder / "log"))
        endpoint_url = f"http://127.0.0.1:{ports['s3']}"
        process, channel = await stack.enter_async_context(server(endpoint_url))
        s3 = await stack.enter_async_context(
            aioboto3.Session().client(
                "s3",
                endpoint_url=endpoint_url,
                aws_access_key_id=KEYS["access_key"],
                aws_secret_access_key=KEYS["secret_key"],
                region_name="us-east-1",
                config=AioConfig(signature_version="s3v4", s3={"addressing_style": "path"}),
            )
        )
        for label, size in SIZES.items():
            await compare(table, label, size, s3, MediaClient(channel), Meter(process))
    Console(width=110).print(table)


if __name__ == "__main__":
    asyncio.run(main())
