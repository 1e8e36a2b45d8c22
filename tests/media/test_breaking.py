from __future__ import annotations

import asyncio
import logging
import os
import re
import resource
import signal
import sys
import urllib.request
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from mediamesh.api.media.v1 import media_service_pb2 as pb
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient
from mediamesh.media.settings import Settings
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.programs import SEAWEEDFS_PORTS, seaweedfs
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Overloaded, Unavailable

pytestmark = pytest.mark.stack

IMAGE = MediaType.MEDIA_TYPE_IMAGE


class Halting:
    """Bytes of which half come, and then nothing more until the reader leaves."""

    def __init__(self, data) -> None:
        self.data, self.half_sent = data, asyncio.Event()

    async def __aiter__(self):
        yield self.data[: len(self.data) // 2]
        self.half_sent.set()
        await asyncio.Event().wait()


@pytest.fixture(scope="session")
def megabytes(make_picture):
    return make_picture("PNG", (1000, 1000), compress_level=0)


async def test_a_cancelled_upload_leaves_nothing(media, bucket, place, megabytes) -> None:
    data = Halting(megabytes)
    upload = asyncio.ensure_future(media.upload(data, media_type=IMAGE, place=place))
    await data.half_sent.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await bucket.is_empty(place)


async def test_a_disk_without_room_is_said_and_the_next_upload_works(media, place, make_picture, megabytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))  # what this process may write to one file
    try:
        with pytest.raises(Overloaded, match="no room") as raised:
            await media.upload(megabytes, media_type=IMAGE, place=place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.retry_after
    await media.upload(make_picture(), media_type=IMAGE, place=place)


async def test_an_upload_whose_deadline_passes_leaves_nothing(media, bucket, place, megabytes) -> None:
    with pytest.raises(DeadlineExceeded):
        await media.upload(Halting(megabytes), media_type=IMAGE, place=place, timeout=0.3)
    assert await bucket.is_empty(place)


async def test_uploads_that_end_early_give_their_memory_and_files_back(
    settings, serve, place, megabytes, tmp_path
) -> None:
    folder = os.fspath(tmp_path)
    update = {"memory_budget_bytes": 16 * 1024 * 1024, "spool_directory": tmp_path}
    async with serve(settings.model_copy(update=update)) as channel:
        media = MediaClient(channel)
        for _ in range(10):  # the budget has room for one at a time
            with pytest.raises(DeadlineExceeded):
                await media.upload(Halting(megabytes), media_type=IMAGE, place=place, timeout=0.05)
        await media.upload(megabytes, media_type=IMAGE, place=place, timeout=20)
        assert not [file for file in open_files("self") if file.startswith(folder)]
    assert not list(tmp_path.iterdir())


def open_files(pid: object) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.fspath(link.readlink()))
    return found


async def test_cancelled_at_any_moment_it_is_stored_with_its_pointer_or_not_at_all(
    media, bucket, place, make_picture
) -> None:
    outcomes = set()
    for step in range(40):
        own = pb.MediaPlace()
        own.CopyFrom(place)
        own.workspace_id += f"-{step}"
        data = make_picture("PNG", (50 + step, 50))
        upload = asyncio.ensure_future(media.upload(data, media_type=IMAGE, place=own))
        await asyncio.wait([upload], timeout=step * 0.001)
        upload.cancel()
        await asyncio.wait([upload])
        # The server may be at its end of it; a second upload waits for nothing and shows what is there.
        value = await media.upload(data, media_type=IMAGE, place=own)
        async with asyncio.timeout(5):
            while await bucket.objects(own) != [value.ref.url.removeprefix("s3://media/")]:  # noqa: ASYNC110 - S3 tells by asking
                await asyncio.sleep(0.01)
        outcomes.add(upload.cancelled())
    assert True in outcomes


async def test_an_upload_is_counted_and_logged(media, place, make_picture, caplog) -> None:
    with caplog.at_level(logging.INFO, "mediamesh.media.upload"):
        value = await media.upload(make_picture(), media_type=IMAGE, place=place)
    record = next(record.__dict__ for record in caplog.records if record.getMessage() == "multimodal_upload")
    assert record["upload_duration_ms"] > 0
    assert {
        name: record[name]
        for name in ("event", "type", "size_bytes", "mime_type", "storage_path", "agent_id", "flow_id")
    } == {
        "event": "multimodal_upload",
        "type": "image",
        "size_bytes": value.ref.size_bytes,
        "mime_type": "image/jpeg",
        "storage_path": value.ref.url,
        "agent_id": "",
        "flow_id": "flow",
    }


async def health(channel, **options):
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return (await check(health_pb2.HealthCheckRequest(), **options)).status


async def until(status, channel) -> None:
    async with asyncio.timeout(20):
        while await health(channel) != status:  # noqa: ASYNC110 - another process's state has no event
            await asyncio.sleep(0.05)


async def once_it_can(call):
    """Make a call until the store can answer it: SeaweedFS shows its buckets a moment before it can use them."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except Unavailable as error:
                if "answered InternalError" not in error.text:
                    raise
            await asyncio.sleep(0.1)


@pytest.mark.stack
async def test_a_store_that_goes_is_unavailable_and_one_that_comes_back_is_used(
    tmp_path, serve, place, make_picture
) -> None:
    ports: dict[str, int] = dict(zip(SEAWEEDFS_PORTS, free_ports(len(SEAWEEDFS_PORTS)), strict=True))
    data = tmp_path / "data"
    data.mkdir()
    program = seaweedfs(ports=ports, data=data, access_key="one-key", secret_key="one-secret", bucket="first")
    settings = Settings(
        endpoint_url=f"http://127.0.0.1:{ports['s3']}",
        access_key="one-key",
        secret_key="one-secret",
        bucket="made-here",
    )
    picture = make_picture()
    async with serve(settings) as channel:
        media = MediaClient(channel)
        await until(health_pb2.HealthCheckResponse.NOT_SERVING, channel)
        with pytest.raises(Unavailable, match="The media store does not answer"):
            await media.upload(picture, media_type=IMAGE, place=place)
        async with running(program, tmp_path / "one.log"):
            await until(health_pb2.HealthCheckResponse.SERVING, channel)
            url = (await once_it_can(lambda: media.upload(picture, media_type=IMAGE, place=place))).ref.url
        await until(health_pb2.HealthCheckResponse.NOT_SERVING, channel)
        for call in (
            media.download(url),
            media.stat(url),
            media.upload(make_picture("GIF"), media_type=IMAGE, place=place),
        ):
            with pytest.raises(Unavailable, match="The media store does not answer"):
                await call
        async with running(program, tmp_path / "two.log"):
            await until(health_pb2.HealthCheckResponse.SERVING, channel)
            assert await once_it_can(lambda: media.download(url)) == picture


@pytest.mark.stack
async def test_wrong_keys_are_told_and_not_spelled_out(settings, serve, place, make_picture, caplog) -> None:
    async with serve(settings.model_copy(update={"secret_key": "wrong-secret"})) as channel:
        with pytest.raises(Unavailable, match="The media store answered SignatureDoesNotMatch"):
            await MediaClient(channel).upload(make_picture(), media_type=IMAGE, place=place)
        assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "wrong-secret" not in caplog.text


CLIENT = """
import asyncio, os, signal, sys
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace
from mediamesh.client.channel import connect
from mediamesh.client.media import MediaClient

async def pieces():
    yield b"\\x89PNG\\r\\n\\x1a\\n" + bytes(3_000_000)
    await asyncio.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    place = MediaPlace(workspace_id=sys.argv[2], flow_id="f", execution_id="e", node_id="n", pin_name="p")
    async with connect(sys.argv[1]) as channel:
        await MediaClient(channel).upload(pieces(), media_type=MediaType.MEDIA_TYPE_IMAGE, place=place)

asyncio.run(main())
"""


@asynccontextmanager
async def process(*arguments, **variables):
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, env={**os.environ, **variables})
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@asynccontextmanager
async def server_process(settings, **variables):
    """Serve the settings in a process of its own; yields the process and a channel to it."""
    (port,) = free_ports(1)
    named = {
        "endpoint_url": settings.endpoint_url,
        "access_key": settings.access_key,
        "secret_key": settings.secret_key,
    }
    named |= {"bucket": settings.bucket, "port": str(port), **variables}
    environment = {f"MEDIAMESH_MEDIA_{name.upper()}": value for name, value in named.items()}
    environment["MEDIAMESH_LOG_LEVEL"] = "warning"
    async with process("-m", "mediamesh.media", **environment) as child, connect(f"127.0.0.1:{port}") as channel:
        await health(channel, wait_for_ready=True)
        await until(health_pb2.HealthCheckResponse.SERVING, channel)
        yield child, channel, port


@pytest.mark.stack
async def test_a_client_that_is_killed_in_mid_upload_leaves_nothing(
    settings, bucket, place, tmp_path, make_picture
) -> None:
    async with server_process(settings, spool_directory=os.fspath(tmp_path)) as (server, channel, port):
        async with process("-c", CLIENT, f"127.0.0.1:{port}", place.workspace_id) as client:
            assert await client.wait() == -signal.SIGKILL
        async with asyncio.timeout(5):
            while any(os.fspath(tmp_path) in file for file in open_files(server.pid)):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        assert await bucket.is_empty(place)
        await MediaClient(channel).upload(make_picture(), media_type=IMAGE, place=place)


@pytest.mark.stack
async def test_prometheus_sees_the_sizes_of_uploads(settings, place, make_picture) -> None:
    (metrics_port,) = free_ports(1)
    async with server_process(settings, metrics_port=str(metrics_port)) as (_, channel, _port):
        await MediaClient(channel).upload(make_picture(), media_type=IMAGE, place=place)
        with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{metrics_port}/metrics") as page:
            text = page.read().decode()
    assert re.search(r'mediamesh_multimodal_upload_size_bytes_count\{agent_id="",[^}]*type="image"\} 1\.0', text)


@pytest.mark.stack
async def test_a_server_that_is_killed_in_mid_upload_leaves_nothing(
    settings, bucket, place, tmp_path, megabytes
) -> None:
    async with server_process(settings, spool_directory=os.fspath(tmp_path)) as (server, channel, _):
        data = Halting(megabytes)
        upload = asyncio.ensure_future(MediaClient(channel).upload(data, media_type=IMAGE, place=place))
        await data.half_sent.wait()
        server.kill()
        with pytest.raises(MeshError):
            await upload
    assert await bucket.is_empty(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.stack
async def test_a_hundred_uploads_at_once_stay_within_the_budget(settings, place, tmp_path) -> None:
    pictures = []
    for index in range(100):
        path = tmp_path / f"{index}.png"
        Image.frombytes("RGB", (1000, 1000), os.urandom(3000) * 1000).save(path, compress_level=0)
        pictures.append(path.read_bytes())
    async with server_process(settings) as (server, channel, _):
        memory = psutil.Process(server.pid).memory_info
        media = MediaClient(channel)
        await media.upload(pictures[0], media_type=IMAGE, place=place)
        idle, peak = memory().rss, 0

        async def watch():
            nonlocal peak
            while True:
                peak = max(peak, memory().rss)
                await asyncio.sleep(0.01)

        watching = asyncio.ensure_future(watch())
        values = await asyncio.gather(*(media.upload(data, media_type=IMAGE, place=place) for data in pictures))
        watching.cancel()
    assert len({value.ref.url for value in values}) == 100
    # 300 MB were on their way; about 110 were held.
    assert peak - idle < 200e6, f"{idle / 1e6:.0f} MB idle, {peak / 1e6:.0f} MB at most"
