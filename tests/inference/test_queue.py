"""What waits is bounded, leaves when its caller leaves or its time is up, and is counted."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.batching.queue import Queue
from mediamesh.wire.errors import DeadlineExceeded, Overloaded, Unavailable
from tests.inference import models
from tests.inference.conftest import inference_server

ONES = np.ones((1, 2), np.float32)
ONE_WORKER = "max_batch_size: 8 dynamic_batching {} instance_group { count: 1 kind: KIND_CPU }"


@pytest.fixture
async def one_worker(tmp_path):
    """A server whose only model has one worker and room for four requests."""
    models.add_model(tmp_path, "double", models.double(), ONE_WORKER)
    # Not measured: on a machine that is busy just then, batches seem not to pay.
    async with (
        inference_server(tmp_path, queue_requests=4, measure_seconds=0) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


@pytest.fixture
async def client(one_worker):
    async with InferenceClient(one_worker) as client:
        yield client


@pytest.fixture
def puts(monkeypatch):
    """The tickets that were put into queues."""
    tickets, put = [], Queue.put

    def counted(self, ticket, *, retry_after):
        put(self, ticket, retry_after=retry_after)
        tickets.append(ticket)

    monkeypatch.setattr(Queue, "put", counted)
    return tickets


async def failed(channel) -> int:
    response = await GRPCInferenceServiceStub(channel).ModelStatistics(pb.ModelStatisticsRequest())
    return response.model_stats[0].inference_stats.fail.count


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in the server, which sets no event
            await asyncio.sleep(0)


async def test_what_is_queued_runs_as_one_batch(client, gate) -> None:
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        waiting = [tasks.create_task(client.infer("double", {"x": ONES * n})) for n in range(4)]
        await asyncio.sleep(0)
        # The stream is in order: once a request behind them is answered, they are queued.
        with pytest.raises(Overloaded):
            await client.infer("double", {"x": ONES})
        gate.open()
    assert [task.result()["y"][0, 0] for task in waiting] == [0, 2, 4, 6]
    assert gate.batches == [1, 4]


async def test_a_full_queue_refuses_and_says_when_to_try_again(client, gate) -> None:
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        for _ in range(4):
            tasks.create_task(client.infer("double", {"x": ONES}))
        await asyncio.sleep(0)
        for infer in (client.infer, client.infer_alone):
            with pytest.raises(Overloaded, match="4 requests wait for model double/1") as raised:
                await infer("double", {"x": ONES})
            assert raised.value.retry_after is not None
            assert raised.value.retry_after > 0
        gate.open()


async def test_a_queue_is_bounded_in_bytes_too(tmp_path, gate) -> None:
    models.add_model(tmp_path, "ragged", models.double(width="W"), ONE_WORKER)
    async with (
        inference_server(tmp_path, queue_bytes=1024) as port,
        connect(f"127.0.0.1:{port}") as channel,
        InferenceClient(channel) as client,
        asyncio.TaskGroup() as tasks,
    ):
        gate.shut()
        tasks.create_task(client.infer("ragged", {"x": ONES}))
        await gate.entered()
        tasks.create_task(client.infer("ragged", {"x": np.ones((1, 200), np.float32)}))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="800 bytes wait"):
            await client.infer("ragged", {"x": np.ones((1, 100), np.float32)})
        gate.open()


async def test_texts_that_wait_are_counted_as_long_as_they_are(tmp_path, gate) -> None:
    models.add_model(tmp_path, "texts", models.identity("BYTES"), ONE_WORKER)
    async with (
        inference_server(tmp_path, queue_bytes=1024) as port,
        InferenceClient(f"127.0.0.1:{port}") as client,
        asyncio.TaskGroup() as tasks,
    ):
        gate.shut()
        tasks.create_task(client.infer("texts", {"x": np.array([["a"]])}))
        await gate.entered()
        tasks.create_task(client.infer("texts", {"x": np.array([["b" * 800]])}))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="808 bytes wait for model texts/1; 408 more pass its limit"):
            await client.infer("texts", {"x": np.array([["c" * 400]])})
        gate.open()


async def test_a_cancelled_call_leaves_the_queue_and_is_counted(one_worker, client, gate, puts) -> None:
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        left = [asyncio.create_task(client.infer_alone("double", {"x": ONES * 7})) for _ in range(4)]

        async def queued() -> bool:
            return len(puts) == 5

        await until(queued)
        for task in left:
            task.cancel()
        await asyncio.wait(left)

        async def counted() -> bool:
            return await failed(one_worker) == 4

        await until(counted)
        gate.open()
    assert gate.batches == [1]


async def test_a_request_that_is_taken_back_on_a_shared_stream_leaves_the_queue_and_its_room(
    one_worker, client, gate
) -> None:
    await client.infer("double", {"x": ONES})

    async def knows() -> bool:
        return bool(client._pool.servers[0]._cancels)

    await until(knows)  # that the server takes requests back
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        held = tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        # More than a stream holds at once, and more than the queue does.
        for taken_back in range(4, 121, 4):
            left = [asyncio.create_task(client.infer("double", {"x": ONES * 7})) for _ in range(4)]
            await asyncio.sleep(0)
            for task in left:
                task.cancel()
            await asyncio.wait(left)

            async def counted(so_many=taken_back) -> bool:
                return bool(await failed(one_worker) == so_many)

            await until(counted)
        gate.open()
        await held
    assert (await client.infer("double", {"x": ONES}))["y"].tolist() == (2 * ONES).tolist()
    assert set(gate.batches) == {1}


async def test_a_request_whose_deadline_passes_in_the_queue_never_runs(one_worker, client, gate, puts) -> None:
    gate.shut()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        for infer in (client.infer, client.infer_alone):
            before = len(puts)
            while len(puts) == before:  # on a slow machine it may pass on the way to the queue
                with pytest.raises(DeadlineExceeded):
                    await infer("double", {"x": ONES}, timeout=0.05)

        async def counted() -> bool:
            return await failed(one_worker) >= len(puts) - 1

        await until(counted)
        gate.open()
    assert gate.batches == [1]


async def test_the_timeout_parameter_is_answered_by_the_server(one_worker, client, gate) -> None:
    gate.shut()
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[ONES.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.parameters["timeout"].int64_param = 1000
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.infer("double", {"x": ONES}))
        await gate.entered()
        with pytest.raises(DeadlineExceeded, match="in the queue of model double/1"):
            await GRPCInferenceServiceStub(one_worker).ModelInfer(request)
        gate.open()


async def test_when_a_stream_is_cancelled_its_requests_leave_the_queue(one_worker, gate) -> None:
    gate.shut()
    async with InferenceClient(one_worker) as other:
        first = asyncio.create_task(other.infer("double", {"x": ONES}))
        await gate.entered()
        waiting = [asyncio.create_task(other.infer("double", {"x": ONES})) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await other.infer("double", {"x": ONES})
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)

    async def counted() -> bool:
        return await failed(one_worker) >= 5  # four left the queue, one was refused

    await until(counted)
    gate.open()
    assert gate.batches == [1]
