"""Answers that nobody reads are bounded, in number and in bytes, and so is what is read meanwhile."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from onnx import TensorProto, helper

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.inference.protocol.outbox import Outbox
from mediamesh.wire.errors import InvalidRequest
from tests.inference import models
from tests.inference.conftest import inference_server


async def passes(wait) -> bool:
    """Tell whether what is awaited ends by itself; it is given up otherwise."""
    task = asyncio.ensure_future(wait)
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        return True
    task.cancel()
    await asyncio.wait([task])
    return False


async def test_requests_are_let_in_until_there_are_enough() -> None:
    outbox = Outbox(most_requests=2, most_bytes=1000)
    assert await passes(outbox.admit())
    assert await passes(outbox.admit())
    assert not await passes(outbox.admit())
    outbox.put(b"answer")
    outbox.leave()
    assert not await passes(outbox.admit())
    written = outbox.written()
    assert await anext(written) == b"answer"
    assert await passes(outbox.admit())


async def test_room_is_kept_for_answers_as_large_as_the_largest_yet() -> None:
    outbox = Outbox(most_requests=100, most_bytes=1000)
    await outbox.admit()
    outbox.put(b"x" * 400)
    outbox.leave()
    assert await passes(outbox.admit())
    assert not await passes(outbox.admit())


async def test_an_answer_larger_than_all_the_room_passes_alone() -> None:
    outbox = Outbox(most_requests=100, most_bytes=10)
    written = outbox.written()
    for _ in range(3):
        await outbox.admit()
        outbox.put(b"x" * 400)
        outbox.leave()
        assert len(await anext(written)) == 400


async def test_who_makes_answers_waits_for_the_writer_and_the_turn_of_one_who_left_goes_on() -> None:
    outbox = Outbox(most_requests=100, most_bytes=1000)
    for _ in range(16):
        outbox.put(b"x")
    first, second = asyncio.ensure_future(outbox.space()), asyncio.ensure_future(outbox.space())
    await asyncio.sleep(0)
    written = outbox.written()
    await anext(written)
    await anext(written)  # the turn of the first, which leaves before it takes it
    first.cancel()
    assert await passes(second)


async def test_an_error_that_was_put_ends_the_writing() -> None:
    outbox = Outbox(most_requests=1, most_bytes=1)
    outbox.put(b"x")
    outbox.put(InvalidRequest("no"))
    written = outbox.written()
    assert await anext(written) == b"x"
    with pytest.raises(InvalidRequest):
        await anext(written)


@pytest.mark.stack
async def test_a_slow_reader_of_large_answers_holds_the_reading(tmp_path) -> None:
    # Small requests, answers of 1 MB.
    size = 1 << 18
    model = models.onnx_bytes(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        {"x": ("FP32", [1, 1])},
        {"y": ("FP32", [1, size])},
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1, size])],
    )
    models.add_model(tmp_path, "wide", model)

    async def requests():
        for number in range(300):
            request = pb.ModelInferRequest(model_name="wide", id=str(number))
            request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
            request.raw_input_contents.append(np.float32(number).tobytes())
            yield request

    async with (
        inference_server(tmp_path, stream_bytes=8 << 20) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(requests())
        first = await call.read()
        assert isinstance(first, pb.ModelStreamInferResponse)
        assert first.infer_response.id == "0"
        before, ran = -1, 0
        async with asyncio.timeout(30):
            while before != ran:
                before = ran
                await asyncio.sleep(0.2)
                statistics = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="wide"))
                ran = statistics.model_stats[0].inference_count
        # 8 in the stream's room, those that were in flight before the first answer told its size, and the transport's.
        assert ran < 150
        count = 1
        async for answer in call:
            assert answer.infer_response.id == str(count)
            count += 1
        assert count == 300
