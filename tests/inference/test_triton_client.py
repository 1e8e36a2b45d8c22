"""Triton's own client, unchanged, works against this server: gRPC at its port, HTTP through the door."""

from __future__ import annotations

import ast
import asyncio
import io
import subprocess
import venv
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.settings import UpSettings
from tests.inference import models, sequence_models
from tests.inference.conftest import inference_server
from tests.inference.repeat import add_repeat, repeat_backend

pytestmark = pytest.mark.stack

HERE = Path(__file__).parent
SCRIPT = HERE / "triton_client.py"
# tritonclient wants protobuf below 7, which we are above: it lives in an environment of its own, made once.
ENVIRONMENT = HERE.parents[1] / ".mediamesh" / "tritonclient-2.73.0-all"
# Every function of the script that takes the client and nothing else is a feature.
FEATURES = [
    node.name
    for node in ast.parse(SCRIPT.read_text()).body
    if isinstance(node, ast.FunctionDef) and [argument.arg for argument in node.args.args][:1] == ["client"]
]


@pytest.fixture(scope="session")
def triton_python() -> Path:
    python, done = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "done"
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        package = "tritonclient[grpc,http]==2.73.0"
        install: list[str | Path] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package]
        installed = subprocess.run(install, capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"tritonclient cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
        done.touch()
    return python


class Addresses(NamedTuple):
    grpc: str
    http: str
    model: Path


@pytest.fixture(scope="module")
async def served(tiny_repository, tmp_path_factory) -> AsyncIterator[Addresses]:
    """A server of all kinds of models, and a door before it."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "models"
    repository.mkdir()
    for directory in tiny_repository.iterdir():
        (repository / directory.name).symlink_to(directory)
    controlled = models.add_model(repository, "controlled", models.double())
    add_repeat(repository)
    sequence_models.add_sequence_model(
        repository, "total", sequence_models.total(), f"oldest {{ max_candidate_sequences: 8 }} {sequence_models.STATE}"
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(repeat_backend())
        port = await stack.enter_async_context(
            inference_server(repository, model_control="explicit", load_models=("*",), max_message_bytes=64 << 20)
        )
        door_port, admin_port = free_ports(2)
        door = Door(
            host="127.0.0.1",
            port=door_port,
            admin_port=admin_port,
            servers={"inference": [("127.0.0.1", port)]},
            template=UpSettings().envoy_template,
            folder=folder / "envoy",
            access_log=folder / "access.jsonl",
            web=folder / "web",
            drain_seconds=1,
        )
        await stack.enter_async_context(running(envoy(door), folder / "envoy.log"))
        yield Addresses(f"127.0.0.1:{port}", f"127.0.0.1:{door_port}", controlled / "1" / "model.onnx")


@pytest.mark.parametrize("feature", FEATURES)
async def test_the_client_of_triton_does(feature, served, triton_python) -> None:
    process = await asyncio.create_subprocess_exec(
        triton_python,
        SCRIPT,
        feature,
        *map(str, served),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output.decode().strip() == "ok"


@pytest.fixture
async def http(served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{served.http}") as session:
        yield session


async def test_what_is_nowhere_has_the_form_of_an_error(http) -> None:
    for method, path in (("GET", "/v2/nothing"), ("POST", "/v2/models/double"), ("GET", "/v2/models/double/infer")):
        async with http.request(method, path) as answer:
            assert answer.status in {400, 404, 405}, path
            assert list(await answer.json()) == ["error"]


async def test_events_of_a_decoupled_model_stream_through_the_door(http) -> None:
    body = {"x": 1, "times": 3}
    async with http.post("/v2/models/repeat/generate_stream", json=body) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        text = await answer.text()
    assert text.count("data: {") == 3
    async with http.post("/v2/models/identity_BYTES/versions/1/generate", json={"x": "tea"}) as answer:
        assert await answer.json() == {"model_name": "identity_BYTES", "model_version": "1", "y": "tea"}


async def test_a_body_beyond_the_limit_is_refused_and_the_next_is_answered(http) -> None:
    async with http.post("/v2/models/double/infer", data=io.BytesIO(b" " * (65 << 20))) as answer:
        assert answer.status == 413
        assert list(await answer.json()) == ["error"]
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
    async with http.post("/v2/models/double/infer", json={"inputs": inputs}) as answer:
        assert (await answer.json())["outputs"][0]["data"] == [2, 4]
