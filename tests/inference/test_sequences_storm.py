"""Models with state under strain: many sequences, storms of starts, callers that die, a model that goes away."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.inference.sequences.scheduler import SequenceScheduler
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, MeshError, NotFound, Overloaded, Unavailable
from tests.inference import sequence_models as made
from tests.inference.conftest import inference_server
from tests.inference.sequence_models import CONTROLS, STATE, request, tensor

pytestmark = pytest.mark.stack

ENDED = (FailedPrecondition, InvalidRequest, NotFound, Unavailable)


@pytest.fixture
def schedulers(monkeypatch):
    """The schedulers of sequences that are made meanwhile."""
    own, make = [], SequenceScheduler.__init__

    def noted(self, *args):
        make(self, *args)
        own.append(self)

    monkeypatch.setattr(SequenceScheduler, "__init__", noted)
    return own


def is_empty(scheduler: SequenceScheduler) -> bool:
    slots = scheduler.slots
    return not (slots._live or slots.active or slots.waiting or slots._idle or scheduler._waiting_bytes)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the server, which sets no event
            await asyncio.sleep(0.01)


async def outcome(call):
    try:
        return await call
    except MeshError as error:
        return error


async def each(*requests):
    for given in requests:
        yield given


async def test_a_thousand_sequences_in_disorder_add_up(tmp_path, schedulers) -> None:
    made.add_sequence_model(
        tmp_path, "m", made.accumulator(), f"oldest {{ max_candidate_sequences: 200 }} {CONTROLS} {STATE}", most=16
    )
    steps = 6
    # Each key's requests in order, those of different keys in any order; four streams share the work.
    orders = []
    for share in range(4):
        order = [key for key in range(1 + share, 1001, 4) for _ in range(steps)]
        random.Random(share).shuffle(order)
        orders.append(order)

    async def sent(order):
        seen: dict[int, int] = {}
        for key in order:
            step = seen[key] = seen.get(key, 0) + 1
            yield request("m", key * step, key, start=step == 1, end=step == steps)

    totals: dict[int, list[float]] = {}

    async def ask(stub, order) -> None:
        async for answer in stub.ModelStreamInfer(sent(order)):
            assert not answer.error_message
            key = int(answer.infer_response.id.partition(":")[0])
            totals.setdefault(key, []).append(float(tensor(answer.infer_response, "y")[0, 0]))

    # Sequences without a slot wait for those that have one, so all that may wait has to have room.
    async with (
        inference_server(tmp_path, queue_requests=10_000, stream_requests=10_000) as port,
        connect(f"127.0.0.1:{port}") as channel,
        asyncio.TaskGroup() as tasks,
    ):
        for order in orders:
            tasks.create_task(ask(GRPCInferenceServiceStub(channel), order))
    expected = [sum(range(1, step + 1)) for step in range(1, steps + 1)]
    assert totals == {key: [key * total for total in expected] for key in range(1, 1001)}
    assert is_empty(schedulers[0])


async def test_a_storm_of_starts_is_held_to_the_limits_and_leaves_nothing_behind(tmp_path, schedulers) -> None:
    made.add_sequence_model(tmp_path, "m", made.total(), f"oldest {{ max_candidate_sequences: 50 }} {STATE}", idle=0.2)
    async with (
        inference_server(tmp_path, queue_requests=100) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        storm = [request("m", 1, key, start=True) for key in range(1, 3001)]
        metadata = (("mediamesh-answer-order", "ready"),)
        answers = [answer async for answer in stub.ModelStreamInfer(each(*storm), metadata=metadata)]
        assert len(answers) == 3000
        refused = [answer.error_message for answer in answers if answer.error_message]
        assert refused
        assert {text.partition(" ")[2] for text in refused} == {
            "requests wait for sequences of model m/1, which is its limit."
        }
        await until(lambda: is_empty(schedulers[0]))
        answer = await stub.ModelInfer(request("m", 3, 1, start=True, end=True))
        assert tensor(answer, "y").tolist() == [[3]]


async def test_restarts_without_end_do_not_pile_up(tmp_path, schedulers) -> None:
    made.add_sequence_model(tmp_path, "m", made.total(), f"direct {{}} {STATE}", most=4)
    async with inference_server(tmp_path) as port, connect(f"127.0.0.1:{port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        sent = [request("m", number, 1, start=True) for number in range(2000)]
        values = [
            float(tensor(answer.infer_response, "y")[0, 0]) async for answer in stub.ModelStreamInfer(each(*sent))
        ]
        assert values == list(range(2000))
        assert schedulers[0].slots.active == 1


DYING = """
import asyncio, sys
import grpc
async def main():
    requests = [bytes.fromhex(line) for line in sys.stdin]
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        for request in requests:
            await call.write(request)
        print("sent", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_caller_that_is_killed_frees_its_slots_and_harms_nobody(tmp_path, schedulers, gate) -> None:
    made.add_sequence_model(tmp_path, "m", made.total(), f"direct {{}} {STATE}", most=2)
    async with (
        inference_server(tmp_path, measure_seconds=0) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        await stub.ModelInfer(request("m", 5, "survivor", start=True))
        gate.shut()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DYING, f"127.0.0.1:{port}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        sent = [request("m", 1, key, start=n == 0) for key in ("dies", "waits") for n in range(10)]
        lines = "\n".join(each.SerializeToString().hex() for each in sent)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines.encode())
        process.stdin.write_eof()
        assert await process.stdout.readline() == b"sent\n"
        await gate.entered()
        await until(lambda: schedulers[0]._waiting == 19)
        assert schedulers[0].slots.waiting == 1
        process.kill()
        await process.wait()
        await until(lambda: not schedulers[0]._waiting)
        gate.open()
        await until(lambda: schedulers[0].slots.active == 1)
        answer = await stub.ModelInfer(request("m", 6, "survivor", end=True))
        assert tensor(answer, "y").tolist() == [[11]]
        with pytest.raises(InvalidRequest, match=r"must specify the START flag.*a request of it was cancelled"):
            await stub.ModelInfer(request("m", 1, "dies"))
        assert is_empty(schedulers[0])


async def test_a_model_that_goes_away_in_mid_sequence_answers_what_runs_and_refuses_the_rest(
    tmp_path, schedulers
) -> None:
    made.add_sequence_model(tmp_path, "m", made.total(), f"direct {{}} {STATE}", most=2)
    async with (
        inference_server(tmp_path, model_control="explicit", load_models=("m",), unload_seconds=0.2) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        for key in (1, 2):
            await stub.ModelInfer(request("m", 1, key, start=True))
        waiting = [asyncio.ensure_future(outcome(stub.ModelInfer(request("m", 1, key, start=True)))) for key in (3, 4)]
        await until(lambda: schedulers[0]._waiting == 2)
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="m"))
        assert {type(each) for each in await asyncio.gather(*waiting)} == {Unavailable}
        assert isinstance(await outcome(stub.ModelInfer(request("m", 1, 1))), ENDED)
        await until(lambda: is_empty(schedulers[0]))
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="m"))
        with pytest.raises(InvalidRequest, match="must specify the START flag"):
            await stub.ModelInfer(request("m", 1, 1))
        answer = await stub.ModelInfer(request("m", 4, 1, start=True))
        assert tensor(answer, "y").tolist() == [[4]]


async def test_random_callers_never_break_a_sequence(tmp_path, schedulers) -> None:
    made.add_sequence_model(
        tmp_path, "m", made.total(), f"oldest {{ max_candidate_sequences: 8 }} {STATE}", most=4, idle=0.02
    )
    chance = random.Random(11)

    async def caller(stub, number: int) -> None:
        """Send sequences as they should be, except for flags, deadlines and cancels thrown in."""
        total: float | None = None
        for _ in range(60):
            start = total is None or chance.random() < 0.1
            end = chance.random() < 0.2
            limit = chance.choice([0, 0, 0, 0.001])
            given = request("m", 1, number, start=start, end=end, timeout=limit)
            call = asyncio.ensure_future(outcome(stub.ModelInfer(given)))
            if chance.random() < 0.1:
                await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
                total = None
                continue
            answer = await call
            if isinstance(answer, MeshError):
                assert not isinstance(answer, Overloaded)
                total = None
                continue
            total = 1 if start else (total or 0) + 1
            assert tensor(answer, "y").tolist() == [[total]]
            if end:
                total = None

    async with (
        inference_server(tmp_path) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        await asyncio.gather(*(caller(stub, number) for number in range(1, 41)))
        await until(lambda: is_empty(schedulers[0]))
