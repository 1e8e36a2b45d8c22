"""What every transport owes to who runs a model over it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.batching.pace import Here
from mediamesh.inference.batching.queue import Queue
from mediamesh.inference.batching.tickets import Ticket
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    NotFound,
    Overloaded,
)
from mediamesh.wire.infer_request import join
from mediamesh.wire.tensors import datatype_of, from_raw, to_raw
from tests.conformance.inference_transports import TRANSPORTS, inference_door
from tests.conformance.making import until
from tests.inference import models
from tests.inference.conftest import gate, inference_server, tiny_repository

__all__ = ["gate", "tiny_repository"]

_FAST = ("unary", "stream")
EVERY = [pytest.param(name, marks=() if name in _FAST else pytest.mark.stack) for name in TRANSPORTS]
ONES = np.ones((1, 2), np.float32)
SAMPLES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504]], np.float16),
    "FP32": np.array([[1.5, -np.inf, 3e38]], np.float32),
    "FP64": np.array([[1.5, -1e308]], np.float64),
    "BYTES": np.array([[b"", "grüße\0".encode(), b"x" * 70_000]], np.object_),
}
CONTENTS = {
    "BOOL": ("bool_contents", [True, False]),
    "INT32": ("int_contents", [-5, 6]),
    "INT64": ("int64_contents", [-5, 2**62]),
    "UINT8": ("uint_contents", [5, 255]),
    "UINT64": ("uint64_contents", [5, 2**64 - 1]),
    "FP32": ("fp32_contents", [1.5, 2]),
    "FP64": ("fp64_contents", [1.5, 2]),
    "BYTES": ("bytes_contents", [b"a", b"bc"]),
}


def request_of(model: str, **inputs: np.ndarray) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
    return pb.ModelInferRequest.FromString(join(message, [to_raw(array) for array in inputs.values()]))


def arrays(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    return {
        output.name: from_raw(output.datatype, output.shape, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


@pytest.fixture(scope="session")
async def server(tiny_repository):
    # Of two workers a model, on whatever machine: a few requests are more than they can hold.
    async with inference_server(tiny_repository, cpu_threads=2) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
async def door(server, tmp_path_factory):
    async with inference_door(server, tmp_path_factory.mktemp("door")) as address:
        yield address


@pytest.fixture(params=EVERY)
def opening(request, server):
    """Return what opens each transport in turn."""
    # The door is opened for those who need it; not in an async fixture, in which no other can be asked for.
    door = "" if request.param in _FAST else request.getfixturevalue("door")
    return lambda: TRANSPORTS[request.param](server, door)


@pytest.fixture
async def transport(opening):
    async with opening() as opened:
        yield opened


@pytest.fixture
def held(gate, monkeypatch):
    """Return a gate before every run, and see that none runs in the event loop, which a shut gate would hold."""
    monkeypatch.setattr(Here, "takes", lambda *_: False)
    return gate


@pytest.fixture
def queued(monkeypatch) -> list[Ticket]:
    """Return the requests that were ever put into queues."""
    tickets, put = list[Ticket](), Queue.put

    def noted(self, ticket, *, retry_after):
        put(self, ticket, retry_after=retry_after)
        tickets.append(ticket)

    monkeypatch.setattr(Queue, "put", noted)
    return tickets


@pytest.mark.parametrize("kind", SAMPLES)
async def test_tensors_of_every_type_come_back_as_they_went(transport, kind) -> None:
    answer = await transport.infer(request_of(f"identity_{kind}", x=SAMPLES[kind]))
    assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("y", kind)
    assert arrays(answer)["y"].tolist() == SAMPLES[kind].tolist()


@pytest.mark.parametrize("kind", CONTENTS)
async def test_typed_contents_say_the_same_as_raw_ones(transport, kind) -> None:
    field, elements = CONTENTS[kind]
    request = pb.ModelInferRequest(model_name=f"identity_{kind}")
    getattr(request.inputs.add(name="x", datatype=kind, shape=[1, 2]).contents, field).extend(elements)
    assert arrays(await transport.infer(request))["y"].tolist() == [elements]


@pytest.mark.parametrize("size", [1, 2**12, 2**14 + 1, 2**18, 2**22 + 3])
async def test_tensors_of_any_size_come_back_whole(transport, size) -> None:
    given = np.random.default_rng(size).integers(0, 256, (1, size), np.uint8)
    answer = await transport.infer(request_of("identity_UINT8", x=given))
    assert np.array_equal(arrays(answer)["y"], given)


async def test_an_empty_tensor_comes_back_empty(transport) -> None:
    answer = await transport.infer(request_of("identity_FP32", x=np.empty((0, 3), np.float32)))
    assert list(answer.outputs[0].shape) == [0, 3]


async def test_an_answer_names_its_request_and_the_version_that_ran(transport) -> None:
    request = request_of("double", x=ONES)
    request.id = "ä request"
    answer = await transport.infer(request)
    assert (answer.id, answer.model_name, answer.model_version) == ("ä request", "double", "1")


async def test_only_the_wanted_outputs_come_in_the_order_of_the_request(transport) -> None:
    request = request_of("pair", a=ONES, b=3 * ONES)
    request.outputs.add(name="difference")
    assert {name: array.tolist() for name, array in arrays(await transport.infer(request)).items()} == {
        "difference": [[-2, -2]]
    }
    request.outputs.add(name="sum")
    assert list(arrays(await transport.infer(request))) == ["difference", "sum"]


async def test_the_best_classes_come_with_their_labels(transport) -> None:
    request = request_of("labelled", x=np.array([[1, 3, 2]], np.float32))
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    (best,) = arrays(await transport.infer(request))["y"].tolist()
    assert best == [b"6.000000:1:bee", b"4.000000:2"]


async def test_many_requests_at_once_get_each_its_own_answer(transport) -> None:
    answers = await asyncio.gather(
        *(transport.infer(request_of("ragged", x=np.full((1, 1 + n % 3), n, np.float32))) for n in range(200))
    )
    assert [float(arrays(answer)["y"][0, 0]) for answer in answers] == [2 * n for n in range(200)]


async def test_one_that_fails_takes_none_with_it(transport) -> None:
    async def outcome(number: int) -> object:
        try:
            index = np.array([99 if number % 7 == 0 else number % 3])
            return arrays(await transport.infer(request_of("pick", index=index)))["picked"].tolist()
        except MeshError as error:
            return type(error)

    outcomes = await asyncio.gather(*map(outcome, range(50)))
    assert [isinstance(one, type) for one in outcomes] == [number % 7 == 0 for number in range(50)]
    assert [one for one in outcomes if not isinstance(one, type)] == [
        [10.0 + number % 3] for number in range(50) if number % 7
    ]


@pytest.mark.parametrize(
    ("inputs", "field", "sentence"),
    [
        ({"x": np.ones((1, 3), np.float32)}, "inputs[0].shape", r"has shape \[1, 3\], expected \[-1, 2\]"),
        ({"x": np.ones((1, 2))}, "inputs[0].datatype", "is 'FP64', expected FP32"),
        ({"z": ONES}, "inputs[0].name", "has no input 'z'; it takes 'x'"),
        ({}, "inputs", "lacks input 'x'"),
        ({"x": np.ones((9, 2), np.float32)}, "inputs", "the batch has 9 items, expected 1 to 8"),
    ],
)
async def test_a_tensor_that_does_not_fit_is_named_with_what_was_expected(transport, inputs, field, sentence) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as raised:
        await transport.infer(request_of("double", **inputs))
    if transport.carries_status:
        assert [name for name, _ in raised.value.violations] == [field]
    assert arrays(await transport.infer(request_of("double", x=ONES)))["y"].tolist() == [[2, 2]]


async def test_raw_contents_of_the_wrong_length_are_refused(transport) -> None:
    request = request_of("double", x=ONES)
    request.raw_input_contents[0] = b"\0" * 7
    with pytest.raises(InvalidRequest, match="7 bytes"):
        await transport.infer(request)


async def test_what_is_not_there_is_named(transport) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'"):
        await transport.infer(request_of("nobody", x=ONES))
    request = request_of("double", x=ONES)
    request.model_version = "7"
    with pytest.raises(NotFound, match="'double' version '7'"):
        await transport.infer(request)
    request = request_of("double", x=ONES)
    request.outputs.add(name="z")
    with pytest.raises(InvalidRequest, match="has no output 'z'"):
        await transport.infer(request)


async def test_bytes_that_are_no_request_are_refused_and_the_next_request_runs(transport) -> None:
    for garbage in (b"\xff" * 10, b"{" * 100, np.random.default_rng(1).bytes(40_000)):
        with pytest.raises(MeshError):
            await transport.send("double", garbage)
    assert arrays(await transport.infer(request_of("double", x=ONES)))["y"].tolist() == [[2, 2]]


async def test_the_time_of_a_request_counts_in_the_queue(transport, held, queued) -> None:
    held.shut()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):  # more than there are workers
            tasks.create_task(transport.infer(request_of("double", x=np.ones((8, 2), np.float32))))
        await until(lambda: len(queued) == 4)
        late = request_of("double", x=ONES)
        late.parameters["timeout"].int64_param = 50_000
        outcome = asyncio.create_task(transport.infer(late))
        # Its time passes; where answers keep their order, its own comes later.
        await until(lambda: len(queued) == 5 and queued[4].answer.done())
        held.open()
        with pytest.raises(DeadlineExceeded):
            await outcome


async def test_who_leaves_takes_its_requests_along(opening, held, queued) -> None:
    held.shut()
    async with opening() as transport:
        asked = [
            asyncio.create_task(transport.infer(request_of("double", x=np.ones((8, 2), np.float32)))) for _ in range(10)
        ]
        await until(lambda: len(queued) == 10)
        for task in asked:
            task.cancel()
    async with opening() as transport:
        last = asyncio.create_task(transport.infer(request_of("double", x=ONES)))
        await until(lambda: queued[-1].items == 1)
        # The door tells the server a moment later that its caller left.
        await until(lambda: not any(ticket.items == 8 and ticket.lane is not None for ticket in queued))
        held.open()
        await last
    assert len(held.batches) <= 3, "what waited did not run"


async def test_a_full_queue_says_when_to_come_again(request, tmp_path, held) -> None:
    config = "max_batch_size: 8 dynamic_batching {} instance_group { count: 1 kind: KIND_CPU }"
    models.add_model(tmp_path, "double", models.double(), config)
    async with inference_server(tmp_path, queue_requests=2) as port:
        for name in _FAST:
            held.shut()
            async with TRANSPORTS[name](f"127.0.0.1:{port}", "") as transport:
                batch = np.ones((8, 2), np.float32)
                asked = [asyncio.create_task(transport.infer(request_of("double", x=batch)))]
                await held.entered()
                asked += [asyncio.create_task(transport.infer(request_of("double", x=batch))) for _ in range(8)]
                await until(lambda asked=asked: sum(task.done() for task in asked) >= 4)
                held.open()
                outcomes = await asyncio.gather(*asked, return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, Overloaded)]
            assert refused
            assert all(one.retry_after for one in refused)
            assert len(refused) + sum(isinstance(one, pb.ModelInferResponse) for one in outcomes) == 9
