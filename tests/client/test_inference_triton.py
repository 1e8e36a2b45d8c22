"""The client against a real Triton: its binary from the package nvidia-pytriton, models in its Python backend."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from functools import partial

import numpy as np
import pytest

from mediamesh.client.inference import InferenceClient
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving
from mediamesh.stack.process import ProgramFailed, running
from mediamesh.stack.programs import Program
from mediamesh.wire.errors import InvalidRequest, MeshError, NotFound
from tests.benchmarks.peers.peers import triton
from tests.client.fake_inference import fake_server
from tests.client.triton_models import write_models

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ONES = np.ones((1, 2), np.float32)


@pytest.fixture(scope="module")
async def address(tmp_path_factory):
    """Return the address of a Triton whose models a caller may load."""
    folder = tmp_path_factory.mktemp("triton")
    write_models(folder / "models")
    (port,) = free_ports(1)
    models = [word for name in ("double", "repeat", "add") for word in ("--load-model", name)]
    try:
        command = triton(folder / "models", port, folder, "--model-control-mode", "explicit", *models)
    except RuntimeError as error:
        pytest.skip(str(error))
    program = Program(
        name="triton",
        argv=command.argv,
        env=command.env,
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
        ready_seconds=120,
        stop_seconds=20,
    )
    async with AsyncExitStack() as stack:
        # On a machine that is busy its Python backend may give up while it starts.
        for left in (2, 1, 0):
            try:
                await stack.enter_async_context(running(program, folder / "triton.log"))
                break
            except ProgramFailed:
                if not left:
                    raise
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def client(address):
    async with InferenceClient(address, keepalive_seconds=300) as client:
        yield client


async def test_a_model_runs_on_the_stream_and_alone(client) -> None:
    for infer in (client.infer, client.infer_alone):
        answer = await infer("double", {"x": 3 * ONES}, outputs=["y"], timeout=60, priority=1)
        assert answer["y"].tolist() == [[6, 6]]
        assert answer.message.model_version == "1"


async def test_errors_have_their_sentence_and_where_a_status_comes_their_class(client) -> None:
    with pytest.raises(MeshError, match="unexpected shape for input 'x'"):
        await client.infer("double", {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(InvalidRequest, match="unexpected shape for input 'x'"):
        await client.infer_alone("double", {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(MeshError, match="unknown model: 'nobody'"):
        await client.infer("nobody", {})
    with pytest.raises(NotFound, match="unknown model: 'nobody'"):
        await client.infer_alone("nobody", {})
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_a_decoupled_model_gives_its_answers_and_ends(client) -> None:
    answers = [answer["y"].tolist() async for answer in client.stream("repeat", {"x": 3 * ONES})]
    assert answers == [[[3, 3]], [[6, 6]], [[9, 9]]]
    assert [answer async for answer in client.stream("repeat", {"x": 0 * ONES})] == []
    async with aclosing(client.stream("repeat", {"x": 5 * ONES})) as left:
        assert (await anext(left))["y"].tolist() == [[5, 5]]
    with pytest.raises(InvalidRequest, match=r"use stream\(\)"):
        await client.infer("repeat", {"x": 2 * ONES})


async def test_a_sequence_keeps_its_state(client) -> None:
    async with client.sequence("add") as first, client.sequence("add") as second:
        for number in range(1, 5):
            sums = await first.infer({"x": number * ONES}, last=number == 4)
            assert sums["y"].tolist() == [[number * (number + 1) / 2] * 2]
            assert (await second.infer({"x": ONES}, last=number == 4))["y"].tolist() == [[number] * 2]


async def test_models_are_described_unloaded_and_loaded(client) -> None:
    models = client.models
    assert (await models.server_metadata()).name == "triton"
    assert [tensor.name for tensor in (await models.metadata("double")).inputs] == ["x"]
    assert (await models.config("double")).max_batch_size == 8
    assert (await models.statistics("double"))[0].name == "double"
    assert {entry.name for entry in await models.index()} == {"double", "repeat", "add"}
    await models.unload("repeat")
    assert not await models.is_ready("repeat")
    await models.load("repeat")
    assert await models.is_ready("repeat")
    assert not await models.is_ready("nobody")


async def test_a_triton_without_the_model_is_passed_over(address) -> None:
    async with (
        fake_server() as having,
        InferenceClient(address, having.address) as client,
    ):
        for _ in range(5):
            assert (await client.infer("elsewhere", {"x": ONES}))["y"].tolist() == [[1, 1]]
    assert len(having.asked) == 5


async def test_tensors_lie_in_memory_shared_with_triton(client) -> None:
    async with client.shared_tensors(64) as shared, shared.take((1, 2)) as given, shared.take((1, 2)) as taken:
        given.array[...] = 4
        await client.infer("double", {"x": given}, outputs={"y": taken})
        assert taken.array.tolist() == [[8, 8]]
