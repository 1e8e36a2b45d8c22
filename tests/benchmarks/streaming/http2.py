"""The client's side of gRPC over HTTP/2 at microseconds a message, for load: no TLS, no retries, no metadata read.

It sends literal headers and never reads those of the answer, so it needs no HPACK; how a call ended is known only as
whether it ended. See RFC 9113 for the frames, and the protocol of gRPC over HTTP/2 for what is in them.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Call", "Connection"]

_FRAME = struct.Struct(">HBBBL")  # length in two parts, type, flags, stream
_SETTING = struct.Struct(">HL")
_PREFIX = struct.Struct(">BL")
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_INITIAL_WINDOW_SETTING = 4
_MAX_FRAME = 16_384
# What is taken of a stream and of a connection before it is told that there is room again.
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 1 << 24


def _head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 255, kind, flags, stream)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _head(kind, flags, stream, len(payload)) + payload


def _literal(text: str) -> bytes:
    data = text.encode()
    if len(data) >= 127:
        raise ValueError(f"a header as long as {text[:40]!r} is not encoded")
    return bytes([len(data)]) + data


class Call:
    """One call: messages out with `send`, in through ``on_message``; ``on_end`` says that no more come."""

    __slots__ = (
        "_connection",
        "_finished",
        "_parts",
        "_size",
        "id",
        "on_end",
        "on_message",
        "pending",
        "taken",
        "window",
    )

    def __init__(
        self,
        connection: Connection,
        number: int,
        window: int,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self.id = number
        self.window = window
        self.on_message = on_message
        self.on_end = on_end
        self.pending: deque[bytes | memoryview] = deque()
        self._finished = False
        self._parts: list[bytes] = []
        self._size = 0
        self.taken = 0

    def send(self, message: bytes) -> None:
        """Send a message, as soon as the windows let it."""
        self.pending.append(_PREFIX.pack(0, len(message)) + message)
        self.pump()

    def finish(self) -> None:
        """Say that no message follows."""
        self._finished = True
        self.pump()

    def cancel(self) -> None:
        """Break the call off."""
        self._connection.forget(self, _frame(_RESET, 0, self.id, struct.pack(">L", 8)))

    def pump(self) -> None:
        """Hand to the connection what the windows let through."""
        connection, pending = self._connection, self.pending
        while pending and (room := min(self.window, connection.window, _MAX_FRAME)) > 0:
            data = pending.popleft()
            if len(data) > room:
                rest = memoryview(data)
                pending.appendleft(rest[room:])
                data = rest[:room]
            self.window -= len(data)
            connection.window -= len(data)
            connection.write(_head(_DATA, 0, self.id, len(data)))
            connection.write(data)
        if pending:
            connection.blocked.add(self)
        elif self._finished:
            self._finished = False
            connection.write(_frame(_DATA, _END_STREAM, self.id))

    def take(self, data: bytes) -> None:
        """Take a piece that is not one whole message, and hand on the messages that it completes."""
        self._parts.append(data)
        self._size += len(data)
        if len(self._parts) == 1 or self._size >= self._wanted():
            self._split()

    def is_between(self) -> bool:
        """Say whether what comes next begins a message."""
        return not self._parts

    def _wanted(self) -> int:
        head = self._parts[0]
        return 5 + int.from_bytes(head[1:5], "big") if len(head) >= 5 else 0

    def _split(self) -> None:
        data = b"".join(self._parts)
        at = 0
        while len(data) - at >= 5 and len(data) - at - 5 >= (size := int.from_bytes(data[at + 1 : at + 5], "big")):
            self.on_message(data[at + 5 : at + 5 + size])
            at += 5 + size
        self._parts = [data[at:]] if at < len(data) else []
        self._size = len(data) - at


class Connection(asyncio.Protocol):
    """One connection that many calls share; what is written within one turn of the loop leaves in one piece."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, Call] = {}
        self._next = 1
        self._rest = b""
        self._out: list[bytes | memoryview] = []
        self._taken = 0
        self._initial = 65_535
        self.window = 65_535
        self.blocked: set[Call] = set()
        self.bytes_in = 0

    @classmethod
    async def to(cls, target: str) -> Self:
        """Connect to ``host:port``."""
        host, _, port = target.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(target), host, int(port))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server and open the windows."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        settings = _frame(_SETTINGS, 0, 0, _SETTING.pack(_INITIAL_WINDOW_SETTING, _STREAM_WINDOW))
        window = _frame(_WINDOW, 0, 0, struct.pack(">L", _CONNECTION_WINDOW))
        self._transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window)

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call."""
        for call in list(self._calls.values()):
            self._end(call.id)

    def close(self) -> None:
        """Close it."""
        self._calls.clear()
        self._transport.close()

    def call(
        self,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        metadata: Iterable[tuple[str, str]] = (),
    ) -> Call:
        """Begin a call."""
        call = Call(self, self._next, self._initial, on_message, on_end)
        self._calls[call.id] = call
        self._next += 2
        # Indexed: POST and http; with an indexed name: path, authority, content-type; all else literal.
        block = b"\x83\x86\x04" + _literal(path) + b"\x01" + _literal(self._authority)
        block += b"\x0f\x10" + _literal("application/grpc")
        for name, value in (("te", "trailers"), *metadata):
            block += b"\x00" + _literal(name) + _literal(value)
        self.write(_frame(_HEADERS, _END_HEADERS, call.id, block))
        return call

    async def unary(self, path: str, request: bytes) -> bytes:
        """Call a method with one message each way.

        Raises:
            RuntimeError: the call failed; the server's log may say why.
        """
        done: asyncio.Future[bytes] = self._loop.create_future()

        def end() -> None:
            if not done.done():
                done.set_exception(RuntimeError(f"{path} failed"))

        def take(message: bytes) -> None:
            if not done.done():
                done.set_result(message)

        call = self.call(path, take, end)
        call.send(request)
        call.finish()
        return await done

    def write(self, frame: bytes | memoryview) -> None:
        """Write a frame, or the next piece of one, at the end of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def forget(self, call: Call, frame: bytes) -> None:
        """Drop a call."""
        if self._calls.pop(call.id, None):
            self.blocked.discard(call)
            self.write(frame)

    def data_received(self, data: bytes) -> None:
        """Read the frames in it."""
        self.bytes_in += len(data)
        data = self._rest + data if self._rest else data
        calls, at, size = self._calls, 0, len(data)
        while size - at >= 9:
            high, low, kind, flags, number = _FRAME.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == _DATA:
                self._taken += end - at - 9
                if call := calls.get(number):
                    call.taken += end - at - 9
                    whole = end - at - 14
                    if whole >= 0 and int.from_bytes(data[at + 10 : at + 14], "big") == whole and call.is_between():
                        call.on_message(data[at + 14 : end])  # by far the most: one message, whole
                    elif end > at + 9:
                        call.take(data[at + 9 : end])
                    if flags or call.taken >= _STREAM_WINDOW // 2:
                        self._after(call, flags)
            else:
                self._control(kind, flags, number, data[at + 9 : end])
            at = end
        self._rest = data[at:]
        if self._taken >= _CONNECTION_WINDOW // 2:
            self.write(_frame(_WINDOW, 0, 0, struct.pack(">L", self._taken)))
            self._taken = 0

    def _after(self, call: Call, flags: int) -> None:
        if flags & _PADDED:
            raise RuntimeError("padding is not understood")
        if flags & _END_STREAM:
            self._end(call.id)
        elif call.taken >= _STREAM_WINDOW // 2:
            self.write(_frame(_WINDOW, 0, call.id, struct.pack(">L", call.taken)))
            call.taken = 0

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _WINDOW:
            self._widen(number, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RESET or (kind == _HEADERS and flags & _END_STREAM):
            self._end(number)
        elif kind == _GO_AWAY:
            self._transport.close()

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = _SETTING.unpack_from(payload, at)
            if name == _INITIAL_WINDOW_SETTING:
                for call in self._calls.values():
                    call.window += value - self._initial
                self._initial = value
        self.write(_frame(_SETTINGS, _ACK, 0))
        self._pump()

    def _widen(self, number: int, more: int) -> None:
        if number == 0:
            self.window += more
        elif call := self._calls.get(number):
            call.window += more
        self._pump()

    def _pump(self) -> None:
        blocked, self.blocked = self.blocked, set()
        for call in blocked:
            call.pump()

    def _end(self, number: int) -> None:
        if call := self._calls.pop(number, None):
            self.blocked.discard(call)
            call.on_end()
