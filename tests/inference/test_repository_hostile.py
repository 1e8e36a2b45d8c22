"""Files that are broken, lie or attack are refused with their path, and the server serves what it has."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.wire.errors import FailedPrecondition, MeshError
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)
ENDS = ("FP32", ["N", 2])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("hostile")
    models.add_model(repository, "good", models.double())
    (repository / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    return repository


@pytest.fixture(scope="module")
async def client(repository):
    async with (
        inference_server(repository, model_control="explicit", load_models=("good",)) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
    ):
        yield client


async def refused(client, name: str, files: dict[str, bytes] | None = None) -> str:
    """Return why a model is not loaded, once it is sure that another still runs."""
    with pytest.raises(MeshError) as raised:
        await client.models.load(name, config={}, files=files)
    assert (await client.infer("good", {"x": ONES}))["y"].tolist() == [[2, 2]]
    return str(raised.value)


def unchecked(nodes, constants=(), ends=ENDS, opset: int = 17) -> bytes:
    """Return a model that onnx itself would not let pass."""
    kind, shape = ends
    takes, gives = (helper.make_tensor_value_info(name, models.TYPES[kind], shape) for name in "xy")
    graph = helper.make_graph(nodes, "hostile", [takes], [gives], initializer=list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(model.SerializeToString())


def outside(location: str) -> bytes:
    """Return a model whose weights lie in a file of this name."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    return unchecked([helper.make_node("Add", ["x", "w"], ["y"])], [weights])


def declared(*dims: int) -> bytes:
    """Return a model whose weights say that they have such a shape, and have eight bytes."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 8)
    return unchecked([helper.make_node("Add", ["x", "w"], ["y"])], [weights])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"not a model",
        b"\xff" * 10_000,
        models.double()[:-7],
        models.double()[:20],
        models.double() * 2 + b"\x99",
        unchecked([helper.make_node("NoSuchThing", ["x"], ["y"])]),
        unchecked([helper.make_node("Identity", ["x"], ["y"], domain="evil")]),
        unchecked([helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]),
        unchecked([helper.make_node("Neg", ["x"], ["z"])]),
        unchecked([helper.make_node("Neg", ["x"], ["y"])], opset=4_000),
        declared(1 << 40),
        declared(1 << 62, 4),
        declared(-1, 2),
        declared(*[1 << 20] * 40),
    ],
    ids=lambda content: f"{len(content)}-bytes",
)
async def test_content_that_is_no_model_is_refused(client, content) -> None:
    assert "hostile/1/model.onnx: " in await refused(client, "hostile", {"1/model.onnx": content})


async def test_a_model_of_what_no_request_can_hold_is_refused(client) -> None:
    item = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    takes = helper.make_value_info("x", helper.make_sequence_type_proto(item))
    gives = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    graph = helper.make_graph([helper.make_node("SequenceLength", ["x"], ["y"])], "list", [takes], [gives])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text = await refused(client, "hostile", {"1/model.onnx": model.SerializeToString()})
    assert "'x' is a seq(tensor(float)), which no request can hold" in text


async def test_weights_beside_the_model_are_read(client) -> None:
    weights = np.array([1, 2], np.float32).tobytes()
    await client.models.load("apart", config={}, files={"1/model.onnx": outside("w.bin"), "1/w.bin": weights})
    assert (await client.infer("apart", {"x": ONES}))["y"].tolist() == [[2, 3]]


@pytest.mark.parametrize("location", ["../../secret.bin", "../secret.bin", "{repository}/secret.bin", "nothing.bin"])
async def test_weights_that_lie_elsewhere_are_refused(client, repository, location) -> None:
    model = models.add_model(repository, f"reader{random.random()}", outside(location.format(repository=repository)))
    (model / "secret.bin").write_bytes((repository / "secret.bin").read_bytes())
    assert f"{model.name}/1/model.onnx: " in await refused(client, model.name)


async def test_a_link_that_leads_weights_elsewhere_is_refused(client, repository) -> None:
    model = models.add_model(repository, "linked", outside("w.bin"))
    (model / "1" / "w.bin").symlink_to(repository / "secret.bin")
    assert "escapes model directory" in await refused(client, "linked")


async def test_bytes_changed_at_random_are_refused_or_make_a_model(client) -> None:
    dice, kinds = random.Random(4), [models.double(), models.pick(), models.sum_and_difference()]
    refusals = 0
    for _ in range(60):
        content = bytearray(dice.choice(kinds))
        for _ in range(dice.randint(1, 5)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        try:
            await client.models.load("hostile", config={}, files={"1/model.onnx": bytes(content)})
        except FailedPrecondition as error:
            assert "hostile" in str(error)  # noqa: PT017 - some of them are models after all
            refusals += 1
    assert refusals
    assert (await client.infer("good", {"x": ONES}))["y"].tolist() == [[2, 2]]


async def test_a_model_without_inputs_is_served(client) -> None:
    made = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [7]))
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(
        helper.make_graph([made], "seven", [], [gives]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.checker.check_model(model)
    await client.models.load("seven", config={}, files={"1/model.onnx": model.SerializeToString()})
    assert (await client.infer("seven", {}))["y"].tolist() == [7]
