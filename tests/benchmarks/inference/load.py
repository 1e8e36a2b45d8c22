"""A closed-loop load generator for ModelInfer and ModelStreamInfer, in a process of its own; prints JSON.

It sends the same serialised requests again and again and speaks HTTP/2 by hand, so that it takes as little of the cores
that it shares with the server as Python can.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import TYPE_CHECKING

import numpy as np
import uvloop

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from tests.benchmarks.inference.models import request
from tests.benchmarks.streaming.http2 import Connection

if TYPE_CHECKING:
    from tests.benchmarks.streaming.http2 import Call

_SERVICE = "/inference.GRPCInferenceService/"
_WARM_UP_SECONDS = 0.5
_CONNECTIONS = 4


class Clock:
    """Notes how long each request took, once the warm-up is over."""

    def __init__(self, seconds: float) -> None:
        self._counts_from = time.perf_counter() + _WARM_UP_SECONDS
        self._ends = self._counts_from + seconds
        self._over = asyncio.get_running_loop().create_future()
        self.running = 0
        self.taken: list[float] = []
        self.all = 0

    def note(self, begin: float) -> bool:
        """Note a request that ends now; false when time is up."""
        now = time.perf_counter()
        self.all += 1
        if begin >= self._counts_from:
            self.taken.append(now - begin)
        if now < self._ends:
            return True
        self.running -= 1
        if not self.running:
            self._over.set_result(None)
        return False

    def fail(self, text: str) -> None:
        """End the run with an error."""
        if not self._over.done():
            self._over.set_exception(RuntimeError(text))

    async def over(self) -> None:
        """Wait until time is up and what was under way has ended."""
        await self._over


class Caller:
    """Calls ModelInfer again and again."""

    def __init__(self, connection: Connection, body: bytes, clock: Clock) -> None:
        self._connection = connection
        self._body = body
        self._clock = clock
        clock.running += 1
        self._begin()

    def _begin(self) -> None:
        self._begun = time.perf_counter()
        self._answered = False
        call = self._connection.call(_SERVICE + "ModelInfer", self._take, self._end)
        call.send(self._body)
        call.finish()

    def _take(self, _message: bytes) -> None:
        self._answered = True

    def _end(self) -> None:
        if not self._answered:
            self._clock.fail("a call failed")
        elif self._clock.note(self._begun):
            self._begin()


class Stream:
    """Keeps so many requests in flight on one stream."""

    def __init__(self, connection: Connection, bodies: list[bytes], clock: Clock) -> None:
        self._bodies = bodies
        self._clock = clock
        self._begun = [0.0] * len(bodies)
        clock.running += len(bodies)
        self._call: Call = connection.call(_SERVICE + "ModelStreamInfer", self._take, self._end)
        for number in range(len(bodies)):
            self._send(number)

    def _send(self, number: int) -> None:
        self._begun[number] = time.perf_counter()
        self._call.send(self._bodies[number])

    def _take(self, message: bytes) -> None:
        response = pb.ModelStreamInferResponse.FromString(message)
        if response.error_message:
            self._clock.fail(response.error_message)
            return
        number = int(response.infer_response.id)
        if self._clock.note(self._begun[number]):
            self._send(number)

    def _end(self) -> None:
        self._clock.fail("the stream ended")


async def run(options: argparse.Namespace) -> None:
    """Load the server and print what was seen."""
    clock, cpu = Clock(options.seconds), time.process_time()
    target = f"127.0.0.1:{options.port}"
    many = min(_CONNECTIONS, options.in_flight) if options.method == "unary" else 1
    connections = [await Connection.to(target) for _ in range(many)]
    if options.method == "stream":
        Stream(connections[0], [request(options.model, number) for number in range(options.in_flight)], clock)
    else:
        body = request(options.model)
        for number in range(options.in_flight):
            Caller(connections[number % many], body, clock)
    gc.freeze()
    await clock.over()
    cpu = time.process_time() - cpu
    taken = np.array(clock.taken) * 1e3
    print(
        json.dumps(
            {
                "per_s": len(taken) / options.seconds,
                "p50_ms": float(np.percentile(taken, 50)),
                "p99_ms": float(np.percentile(taken, 99)),
                "client_cpu_us": cpu / max(1, clock.all) * 1e6,
                "requests": clock.all,
            }
        )
    )
    for connection in connections:
        connection.close()


def main() -> None:
    """Parse the command line and load the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", choices=["unary", "stream"], required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
