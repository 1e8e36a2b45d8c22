"""Models with state: what one request of a sequence leaves, the next finds; sequences do not mix, and are bounded."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.client.inference.answers import error_of
from mediamesh.inference.onnx.session import Session
from mediamesh.inference.sequences import slots
from mediamesh.wire.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    MeshError,
    Overloaded,
)
from tests.inference import sequence_models as made
from tests.inference.conftest import inference_server
from tests.inference.sequence_models import CONTROLS, FROM_FILE, STATE, request, tensor

OLDEST = "oldest { max_candidate_sequences: 2000 }"
START_FLAG = "must specify the START flag on the first request of the sequence"


@pytest.fixture(scope="session")
def sequence_repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("sequences")
    made.add_sequence_model(repository, "accumulator", made.accumulator(), f"{OLDEST} {CONTROLS} {STATE}")
    directory = made.add_sequence_model(repository, "total", made.total(), f"direct {{}} {FROM_FILE}")
    (directory / "initial_state").mkdir()
    (directory / "initial_state" / "hundred").write_bytes(np.array([100], np.float32).tobytes())
    made.add_sequence_model(repository, "plain_total", made.total(), f"{OLDEST} {STATE}")
    made.add_sequence_model(
        repository,
        "text_id",
        made.text_id(),
        'control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }',
    )
    made.add_sequence_model(
        repository,
        "history",
        made.history(),
        'state { input_name: "state" output_name: "state_next" data_type: TYPE_FP32 dims: [ -1 ] '
        'initial_state { name: "nothing" data_type: TYPE_FP32 dims: [ 0 ] zero_data: true } }',
        most=0,
        more=f'{made.ONE_INSTANCE} input {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}',
    )
    shown = "".join(f'output {{ name: "{name}" data_type: TYPE_FP32 dims: [ 1 ] }} ' for name in ("y", "state_next"))
    made.add_sequence_model(repository, "shown", made.total(), STATE, more=f"{made.ONE_INSTANCE} {shown}")
    return repository


@pytest.fixture(scope="session")
async def channel(sequence_repository):
    async with inference_server(sequence_repository) as port, connect(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture
def stub(channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


@pytest.fixture
def key(request) -> int:
    """An identifier that no other test uses."""
    return abs(hash(request.node.nodeid)) % 2**63


@contextlib.asynccontextmanager
async def a_server(tmp_path, model, batching, *, most=8, idle=60.0, **settings):
    """A stub of a server of one model of its own, called m."""
    made.add_sequence_model(tmp_path, "m", model, batching, most=most, idle=idle)
    async with inference_server(tmp_path, **settings) as port, connect(f"127.0.0.1:{port}") as channel:
        yield GRPCInferenceServiceStub(channel)


async def value(call, name: str = "y") -> float:
    return float(tensor(await call, name).ravel()[0])


async def test_a_sequence_adds_up_and_a_new_one_begins_anew(stub, key) -> None:
    async def add(amount: float, *, start: bool = False, end: bool = False) -> float:
        return await value(stub.ModelInfer(request("accumulator", amount, key, start=start, end=end)))

    assert [await add(1, start=True), await add(2), await add(3, end=True)] == [1, 3, 6]
    assert [await add(10, start=True), await add(1, end=True)] == [10, 11]


async def test_the_model_is_told_the_start_the_end_and_the_identifier(stub) -> None:
    answers = [
        await stub.ModelInfer(request("accumulator", 1, 2**64 - 1, start=first, end=last))
        for first, last in ((True, False), (False, False), (False, True))
    ]
    assert [tensor(answer, "end", np.int32).tolist() for answer in answers] == [[[0]], [[0]], [[1]]]
    assert [tensor(answer, "id", np.uint64).tolist() for answer in answers] == [[[2**64 - 1]]] * 3


async def test_a_state_begins_as_its_file_says_and_never_leaves_the_server(stub, key) -> None:
    answer = await stub.ModelInfer(request("total", 1, key, start=True, end=True))
    assert tensor(answer, "y").tolist() == [[101]]
    assert [output.name for output in answer.outputs] == ["y"]
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="total"))
    assert [spec.name for spec in metadata.inputs] == ["x"]
    assert [spec.name for spec in metadata.outputs] == ["y"]
    with pytest.raises(InvalidRequest, match="has no output 'state_next'; it gives 'y'"):
        await stub.ModelInfer(request("total", 1, key, start=True, outputs=("state_next",)))


async def test_a_state_that_the_configuration_lists_as_an_output_is_given(stub, key) -> None:
    answer = await stub.ModelInfer(request("shown", 5, key, start=True, outputs=("state_next",)))
    assert tensor(answer, "state_next").tolist() == [[5]]
    assert await value(stub.ModelInfer(request("shown", 5, key, end=True))) == 10


async def test_a_sequence_may_have_a_text_for_an_identifier(stub, key) -> None:
    answer = await stub.ModelInfer(request("text_id", 1, f"caller/{key}", start=True, end=True))
    assert answer.raw_output_contents[0][4:].decode() == f"caller/{key}"
    assert await value(stub.ModelInfer(request("plain_total", 4, "ä", start=True, end=True))) == 4


async def test_a_state_may_grow(stub, key) -> None:
    kept = []
    for number in range(3):
        given = request("history", number, key, start=number == 0, end=number == 2, shape=(2,))
        kept.append(tensor(await stub.ModelInfer(given), "y").tolist())
    assert kept == [[0, 0], [0, 0, 1, 1], [0, 0, 1, 1, 2, 2]]


async def test_a_second_start_begins_anew(stub, key) -> None:
    sent = [(1, True), (2, False), (5, True), (6, False)]
    answers = [await value(stub.ModelInfer(request("plain_total", n, key, start=first))) for n, first in sent]
    assert answers == [1, 3, 5, 11]


async def test_our_own_client_has_a_block_for_a_sequence(channel) -> None:
    async with InferenceClient(channel) as client, client.sequence("plain_total") as sequence:
        totals = [await sequence.infer({"x": np.full((1, 1), number, np.float32)}) for number in (1, 2, 3)]
    assert [float(total["y"][0, 0]) for total in totals] == [1, 3, 6]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (request("plain_total", 1, None, start=True), "sequence_id.*is missing"),
        (request("plain_total", 1, 0, start=True), "sequence_id.*is missing"),
        (request("plain_total", 1, 77_000), START_FLAG),
        (request("plain_total", 1, 77_000, end=True), START_FLAG),
        (request("plain_total", 1, 77_001, start=True, shape=(2, 1)), "the batch has 2 items, expected 1"),
        (request("accumulator", 1, "text", start=True), "is 'text', the model takes a number"),
        (request("text_id", 1, 7, start=True), "is 7, the model takes a text"),
        (request("plain_total", 1, "x" * 129, start=True), "has 129 characters, at most 128"),
    ],
    ids=["no id", "zero", "no start", "only an end", "two items", "a text", "a number", "a long text"],
)
async def test_a_request_that_has_no_place_in_a_sequence_is_refused(stub, given, sentence) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        await stub.ModelInfer(given)


@pytest.mark.parametrize(
    ("name", "field", "content"),
    [
        ("sequence_id", "bool_param", True),
        ("sequence_start", "int64_param", 1),
        ("sequence_end", "string_param", "yes"),
    ],
)
async def test_a_parameter_of_the_wrong_type_is_refused(stub, name, field, content) -> None:
    given = request("plain_total", 1, 77_002, start=True)
    setattr(given.parameters[name], field, content)
    with pytest.raises(InvalidRequest, match=rf"parameters\[{name}\].*is {field}"):
        await stub.ModelInfer(given)


async def test_the_inputs_that_the_server_feeds_are_not_the_callers(stub, key) -> None:
    given = request("accumulator", 1, key, start=True)
    given.inputs.add(name="START", datatype="BOOL", shape=[1, 1])
    given.raw_input_contents.append(b"\x01")
    with pytest.raises(InvalidRequest, match="has no input 'START'; it takes 'x'"):
        await stub.ModelInfer(given)


async def test_requests_of_one_sequence_keep_their_order_and_different_ones_share_runs(tmp_path, gate) -> None:
    async with a_server(tmp_path, made.accumulator(), f"{OLDEST} {CONTROLS} {STATE}", measure_seconds=0) as stub:
        gate.shut()

        async def sent():
            yield request("m", 1, 1, start=True)
            await gate.entered()
            for number in range(1, 4):
                for key in (1, 2, 3, 4):
                    first, last = number == 1 and key > 1, number == 3
                    yield request("m", 10**number * key, key, start=first, end=last)
            yield request("nobody", 1, 1, start=True)

        totals: dict[str, list[float]] = {}
        async for answer in stub.ModelStreamInfer(sent(), metadata=(("mediamesh-answer-order", "model"),)):
            # The server reads in order: once the model that is not there is refused, all that was sent before waits.
            if answer.error_message:
                assert "nobody" in answer.error_message
                gate.open()
                continue
            response = answer.infer_response
            totals.setdefault(response.id.partition(":")[0], []).append(float(tensor(response, "y")[0, 0]))
    assert totals == {"1": [1, 11, 111, 1111], **{str(k): [10 * k, 110 * k, 1110 * k] for k in (2, 3, 4)}}
    assert gate.batches[0] == 1
    assert max(gate.batches) >= 3


async def test_a_batch_waits_for_the_share_of_its_slots_that_was_asked_for(tmp_path, gate) -> None:
    strategy = "direct { minimum_slot_utilization: 1 max_queue_delay_microseconds: 60000000 }"
    async with a_server(tmp_path, made.total(), f"{strategy} {STATE}", most=3) as stub:
        gate.shut()
        gate.open()
        asked = [value(stub.ModelInfer(request("m", key, key, start=True, end=True))) for key in (1, 2, 3)]
        assert await asyncio.gather(*asked) == [1, 2, 3]
    assert gate.batches == [3]


async def test_sequences_beyond_the_slots_wait_until_one_ends(tmp_path) -> None:
    async with a_server(tmp_path, made.total(), f"direct {{}} {STATE}", most=2) as stub:
        for key in (1, 2):
            await stub.ModelInfer(request("m", 1, key, start=True))
        waiting = asyncio.ensure_future(value(stub.ModelInfer(request("m", 7, 3, start=True))))
        assert await value(stub.ModelInfer(request("m", 1, 1))) == 2
        assert not waiting.done()
        await stub.ModelInfer(request("m", 1, 1, end=True))
        assert await waiting == 7
        assert await value(stub.ModelInfer(request("m", 1, 3, end=True))) == 8


async def test_an_idle_sequence_is_ended_and_its_slot_is_free(tmp_path) -> None:
    async with a_server(tmp_path, made.total(), f"oldest {{ max_candidate_sequences: 1 }} {STATE}", idle=0.05) as stub:
        await stub.ModelInfer(request("m", 1, 1, start=True))
        # This one has to wait for the slot.
        assert await value(stub.ModelInfer(request("m", 5, 2, start=True, end=True))) == 5
        with pytest.raises(InvalidRequest, match=f"{START_FLAG}; the one before was ended: it was idle for 0.05 s"):
            await stub.ModelInfer(request("m", 1, 1))


async def test_what_waits_is_bounded(tmp_path) -> None:
    async with a_server(tmp_path, made.total(), f"direct {{}} {STATE}", most=1, queue_requests=3) as stub:
        await stub.ModelInfer(request("m", 1, 1, start=True))

        async def sent():  # on one stream, which is read in order
            for key in (2, 3, 4, 9):
                yield request("m", key, key, start=True, end=True)

        answers = stub.ModelStreamInfer(sent(), metadata=(("mediamesh-answer-order", "ready"),))
        refused = error_of(await anext(aiter(answers)))
        assert isinstance(refused, Overloaded)
        assert "3 requests wait for sequences of model m/1" in str(refused)
        assert refused.retry_after
        await stub.ModelInfer(request("m", 1, 1, end=True))
        assert [float(tensor(answer.infer_response, "y")[0, 0]) async for answer in answers] == [2, 3, 4]


async def test_a_request_whose_time_is_up_ends_its_sequence_so_that_none_has_a_hole(tmp_path, gate) -> None:
    async with a_server(tmp_path, made.total(), f"{OLDEST} {STATE}", measure_seconds=0) as stub:
        gate.shut()
        first = asyncio.ensure_future(value(stub.ModelInfer(request("m", 1, 1, start=True))))
        await gate.entered()
        late = asyncio.ensure_future(stub.ModelInfer(request("m", 2, 1, timeout=0.05)))
        behind = asyncio.ensure_future(stub.ModelInfer(request("m", 3, 1)))
        with pytest.raises(DeadlineExceeded, match="in a sequence of model m/1"):
            await late
        with pytest.raises((FailedPrecondition, InvalidRequest), match="the time of one of its requests was up"):
            await behind
        gate.open()
        assert await first == 1
        with pytest.raises(InvalidRequest, match=f"{START_FLAG}; the one before was ended: the time of one"):
            await stub.ModelInfer(request("m", 4, 1))
        assert await value(stub.ModelInfer(request("m", 4, 1, start=True))) == 4


async def test_a_request_that_failed_leaves_the_state_as_it_was(stub, key) -> None:
    await stub.ModelInfer(request("plain_total", 1, key, start=True))
    with pytest.raises(InvalidRequest):
        await stub.ModelInfer(request("plain_total", 1, key, shape=(1, 2)))
    assert await value(stub.ModelInfer(request("plain_total", 1, key, end=True))) == 2


@pytest.fixture
def failures(monkeypatch):
    """What runs fail with; when there is nothing left, they go well."""
    left: list[Exception] = []
    run = Session.run

    def fails_first(self, inputs, outputs):
        if left:
            raise left.pop()
        return run(self, inputs, outputs)

    monkeypatch.setattr(Session, "run", fails_first)
    return left


async def test_a_last_request_that_failed_is_sent_again(stub, key, failures) -> None:
    for amount in (1, 2):
        assert await value(stub.ModelInfer(request("plain_total", amount, key, start=amount == 1))) in {1, 3}
    for _ in range(2):
        failures.append(MeshError("It failed."))
        with pytest.raises(MeshError, match="It failed"):
            await stub.ModelInfer(request("plain_total", 5, key, end=True))
    assert await value(stub.ModelInfer(request("plain_total", 5, key, end=True))) == 8
    with pytest.raises(InvalidRequest, match=START_FLAG):
        await stub.ModelInfer(request("plain_total", 5, key))


async def test_a_last_request_that_failed_gives_way_to_a_new_sequence_of_its_name(
    tmp_path, monkeypatch, failures, gate
) -> None:
    begun, begin = asyncio.Event(), slots.Slots.open

    def noted(self, key):
        begun.set()
        return begin(self, key)

    async with a_server(tmp_path, made.total(), f"{OLDEST} {STATE}", measure_seconds=0) as stub:
        await stub.ModelInfer(request("m", 1, 1, start=True))
        monkeypatch.setattr(slots.Slots, "open", noted)
        gate.shut()
        last = asyncio.ensure_future(stub.ModelInfer(request("m", 2, 1, end=True)))
        await gate.entered()
        failures.append(MeshError("It failed."))
        fresh = asyncio.ensure_future(value(stub.ModelInfer(request("m", 7, 1, start=True))))
        await begun.wait()
        gate.open()
        with pytest.raises(MeshError, match="It failed"):
            await last
        assert await fresh == 7
        assert await value(stub.ModelInfer(request("m", 1, 1, end=True))) == 8


class Counter:
    """Adds up what an instrument is told of the model ``m``, by one of its labels."""

    def __init__(self, label: str) -> None:
        self.sums: dict[str, int] = {}
        self._label = label

    def add(self, amount: int, labels: dict[str, str]) -> None:
        if labels["model"] == "m":  # sequences of other servers may end just now, being idle
            name = labels[self._label]
            self.sums[name] = self.sums.get(name, 0) + amount


async def test_sequences_are_counted_while_they_are_there_and_by_how_they_end(tmp_path, monkeypatch) -> None:
    there, ended = Counter("state"), Counter("reason")
    monkeypatch.setattr(slots, "_ACTIVE", there)
    monkeypatch.setattr(slots, "_ENDED", ended)
    async with a_server(tmp_path, made.total(), f"direct {{}} {STATE}", most=1, idle=0.05) as stub:
        await stub.ModelInfer(request("m", 1, 1, start=True))
        # This one has to wait for the slot.
        await stub.ModelInfer(request("m", 1, 2, start=True, end=True))
        assert there.sums == {"active": 0, "waiting": 0}
        assert ended.sums == {"idle": 1, "finished": 1}
        await stub.ModelInfer(request("m", 1, 3, start=True))
    assert there.sums == {"active": 0, "waiting": 0}
    assert sum(ended.sums.values()) == 3


async def test_a_model_with_state_is_counted_like_any_other(stub, key) -> None:
    async def count() -> int:
        answer = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="history"))
        return int(answer.model_stats[0].inference_count)

    before = await count()
    await stub.ModelInfer(request("history", 1, key, start=True, end=True, shape=(1,)))
    assert await count() == before + 1
