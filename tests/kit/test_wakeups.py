"""Wake-ups of grpc.aio: one turn of the loop takes all there are."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from mediamesh.kit.wakeups import _all_at_once

PROGRAM = """
import asyncio
import grpc
from mediamesh.kit.wakeups import take_wakeups_together

taken = []

async def main():
    loop = asyncio.get_running_loop()
    take_wakeups_together()
    assert "add_reader" not in vars(loop)

    async def answer(request, context):
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/test/Echo")
        answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(500)))
    assert answers == [b"%d" % number for number in range(500)]
    await server.stop(0)

{run}
print("answered")
"""


def test_one_byte_is_left_to_grpc_and_the_rest_is_taken() -> None:
    reader, writer = socket.socketpair()
    left: list[bytes] = []
    with reader, writer:
        read = _all_at_once(reader, lambda: left.append(reader.recv(100)))
        for count in (1, 2, 200):
            writer.send(b"1" * count)
            read()
    assert left == [b"1", b"1", b"1"]


@pytest.mark.stack
def test_calls_are_answered_on_either_loop() -> None:
    for run in ("asyncio.run(main())", "import uvloop; uvloop.run(main())"):
        program = [sys.executable, "-c", PROGRAM.replace("{run}", run)]
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout == "answered\n", done.stderr
