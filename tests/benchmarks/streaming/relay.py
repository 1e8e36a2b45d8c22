"""A relay on bare grpc.aio, to hold the broker against: it keeps nothing, checks nothing and forwards bytes.

It serves the methods of the stream service, so that it can stand behind the same door. A publisher's messages are
handed to all subscribers of its topic as they are; the newest is kept for who comes later. A subscriber that lags by
more than 256 messages loses what comes.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = "mediamesh.api.stream.v1.StreamService"
_MOST_QUEUED = 256


class Relay:
    """Topics in memory."""

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)
        self._newest: dict[str, bytes] = {}

    async def publish(self, _: AsyncIterator[bytes], context: Any) -> None:
        """Hand every message to the subscribers of the topic."""
        topic = _topic(context)
        read, queues = context.read, self._queues[topic]
        while (message := await read()) is not grpc.aio.EOF:
            self._newest[topic] = message
            for queue in queues:
                if not queue.full():
                    queue.put_nowait(message)

    async def subscribe(self, _: bytes, context: Any) -> None:
        """Write the newest message, then those that come."""
        topic = _topic(context)
        queue: asyncio.Queue[bytes] = asyncio.Queue(_MOST_QUEUED)
        self._queues[topic].add(queue)
        write = context.write
        try:
            if topic in self._newest:
                await write(self._newest[topic])
            while True:
                await write(await queue.get())
        finally:
            self._queues[topic].discard(queue)


def _topic(context: Any) -> str:
    return str(dict(context.invocation_metadata())["topic"])


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    relay = Relay()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods: dict[str, Any] = {
        "Publish": grpc.stream_stream_rpc_method_handler(relay.publish),
        "Subscribe": grpc.unary_stream_rpc_method_handler(relay.subscribe),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for name in ("", SERVICE):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    (uvloop.run if options.uvloop else asyncio.run)(serve(options.port))


if __name__ == "__main__":
    main()
