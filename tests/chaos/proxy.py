"""A TCP proxy that can do to a connection what networks do: cut it, swallow it, slow it down."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

__all__ = ["Proxy", "proxied"]

_PIECE = 65_536
_SLOW_PIECE = 1_024
# Small, so that a slow reader's backlog lies with the server and not in here.
_SLOW_BUFFER = 4_096


class Proxy:
    """Passes connections on; made by `proxied`.

    Attributes:
        port: Where it listens on 127.0.0.1.
        connections: How many connections it has passed on so far.
    """

    def __init__(self, target: int, bytes_per_second: float | None) -> None:
        self.port = 0
        self.connections = 0
        self._target = target
        self._rate = bytes_per_second
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False

    @property
    def address(self) -> str:
        """``host:port`` of it."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection off with an RST, and every new one, until `heal`."""
        self._is_cut = True
        self.reset()

    def reset(self) -> None:
        """Break every connection off with an RST, once; new ones pass."""
        for writer in [*self._writers]:
            _reset(writer)

    def swallow(self) -> None:
        """Let nothing pass, without a word, until `heal`: connections stay and new ones are taken."""
        self._passing.clear()

    def heal(self) -> None:
        """Pass connections on again, those too that were swallowed."""
        self._is_cut = False
        self._passing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            await self._passing.wait()
            there, back = await self._connect()
            self._writers.add(back)
            self.connections += 1
            try:
                await self._pass_both_ways(reader, writer, there, back)
            finally:
                self._writers.discard(back)
                _reset(back)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            _reset(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._rate is None:
            return await asyncio.open_connection("127.0.0.1", self._target)
        raw = socket.socket()
        raw.setblocking(False)  # noqa: FBT003 - a positional of the socket module
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._target))
        return await asyncio.open_connection(sock=raw, limit=_SLOW_BUFFER)

    async def _pass_both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        pumps = [
            asyncio.create_task(self._pump(reader, back, None)),
            asyncio.create_task(self._pump(there, writer, self._rate)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float | None) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE if rate is None else _SLOW_PIECE):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
                if rate is not None:
                    await asyncio.sleep(len(data) / rate)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with suppress(OSError):  # it may be closed already
        # With a linger of 0 seconds the kernel sends RST in place of FIN.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def proxied(target: int, *, bytes_per_second: float | None = None) -> AsyncGenerator[Proxy]:
    """Pass connections on to a port of 127.0.0.1.

    Args:
        target: The port.
        bytes_per_second: How much of what the other side says is taken of each connection; all when None.
    """
    proxy = Proxy(target, bytes_per_second)
    served: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            served.add(task)
            task.add_done_callback(served.discard)
        # asyncio logs a task of a connection that ends as cancelled; here that is how all of them end.
        with suppress(asyncio.CancelledError):
            await proxy.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in served:
            task.cancel()
        if served:
            await asyncio.wait(served)
