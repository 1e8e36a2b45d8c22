"""A closed-loop load generator for ModelInfer and ModelStreamInfer, in a process of its own; prints JSON.

It sends the same serialised request again and again, so that it costs as little of the shared cores as Python can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import grpc
import numpy as np

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.infer_request import join

PICTURE = np.random.default_rng(7).standard_normal((1, 3, 224, 224)).astype(np.float32)
WARM_UP_SECONDS = 0.5


def request(model: str, number: int) -> bytes:
    """Return a request whose id is its number."""
    message = pb.ModelInferRequest(model_name=model, id=str(number))
    message.inputs.add(name="input", datatype="FP32", shape=PICTURE.shape)
    return join(message, [PICTURE.tobytes()])


class Clock:
    """Notes how long each request took, once the warm-up is over."""

    def __init__(self, seconds: float) -> None:
        self._counts_from = time.perf_counter() + WARM_UP_SECONDS
        self.ends = self._counts_from + seconds
        self.taken: list[float] = []
        self.all = 0

    def note(self, begin: float) -> bool:
        """Note a request that ends now; false when time is up."""
        now = time.perf_counter()
        self.all += 1
        if begin >= self._counts_from:
            self.taken.append(now - begin)
        return now < self.ends


async def unary(channel: grpc.aio.Channel, body: bytes, clock: Clock) -> None:
    """Call ModelInfer until time is up."""
    infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    while True:
        begin = time.perf_counter()
        await infer(body)
        if not clock.note(begin):
            return


async def stream(channel: grpc.aio.Channel, model: str, in_flight: int, clock: Clock) -> None:
    """Keep so many requests in flight on one stream until time is up."""
    bodies = [request(model, number) for number in range(in_flight)]
    begins = [0.0] * in_flight
    call: Any = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )()
    free: asyncio.Queue[int | None] = asyncio.Queue()
    for number in range(in_flight):
        free.put_nowait(number)

    async def write() -> None:
        while (number := await free.get()) is not None:
            begins[number] = time.perf_counter()
            await call.write(bodies[number])
        await call.done_writing()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        async for response in call:
            if response.error_message:
                raise RuntimeError(response.error_message)
            number = int(response.infer_response.id)
            free.put_nowait(number if clock.note(begins[number]) else None)


async def run(options: argparse.Namespace) -> None:
    """Load the server and print what was seen."""
    clock, cpu = Clock(options.seconds), time.process_time()
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{options.port}", options=limits) as channel:
        if options.method == "stream":
            await stream(channel, options.model, options.in_flight, clock)
        else:
            body = request(options.model, 0)
            await asyncio.gather(*(unary(channel, body, clock) for _ in range(options.in_flight)))
    cpu = (time.process_time() - cpu) / max(1, clock.all)
    print(json.dumps({"seconds": clock.taken, "client_cpu_ms": cpu * 1e3, "per_s": len(clock.taken) / options.seconds}))


def main() -> None:
    """Parse the command line and load the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", choices=["unary", "stream"], required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
