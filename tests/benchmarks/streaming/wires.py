"""Ways to carry events from publishers to subscribers, each spoken by hand so that the load costs little.

All have the same three verbs: `open` makes streams with one publisher each, `subscribe` adds a reader and returns once
it has read something, `publish` sends a stamped event.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis

from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_VIDEO
from mediamesh.api.stream.v1 import stream_pb2, stream_service_pb2
from mediamesh.api.stream.v1.chunk_pb2 import MEDIA_ENCODING_BINARY
from tests.benchmarks.streaming.http2 import Connection
from tests.benchmarks.streaming.meter import filler, stamped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.streaming.http2 import Call

__all__ = ["WIRES", "Broker", "Wire"]

SERVICE = "/mediamesh.api.stream.v1.StreamService"
_AT_ONCE = 100
_TEXT_LIMIT = 65_536


class Wire(Protocol):
    """A way to carry events."""

    async def open(self, count: int) -> None:
        """Make so many streams, each with a publisher and a first event."""

    async def subscribe(self, stream: int, read: Callable[[bytes], None]) -> None:
        """Add a subscriber; return when it has its first message. What follows goes to ``read``."""

    def publish(self, stream: int) -> None:
        """Send an event, stamped with the time."""

    async def close(self) -> None:
        """End the streams and the connections."""


class _Grpc:
    def __init__(self, target: str, size: int, connections: int) -> None:
        self._target = target
        self._count = connections
        self._connections: list[Connection] = []
        self._rest = filler(size)
        self._publishers: list[Call] = []
        self._sequences: list[int] = []
        self._message = stream_service_pb2.PublishRequest()
        self._message.event.event_type = stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA
        self._turn = 0
        self.ended_early = 0
        self.is_closing = False
        self.other_frames = 0

    @property
    def bytes_in(self) -> int:
        """Bytes received on all connections."""
        return sum(connection.bytes_in for connection in self._connections)

    async def connect(self) -> None:
        self._connections = [await Connection.to(self._target) for _ in range(self._count)]

    def connection(self) -> Connection:
        """Return the connections in turn."""
        self._turn += 1
        return self._connections[self._turn % len(self._connections)]

    def end(self) -> None:
        """Note that a call ended; none should before `close`."""
        self.ended_early += not self.is_closing

    def event(self, stream: int) -> bytes:
        """Return the next event of a stream."""
        self._sequences[stream] += 1
        event = self._message.event
        event.sequence = event.payload.data.sequence_number = self._sequences[stream]
        if len(self._rest) < _TEXT_LIMIT - 100:
            event.payload.data.content.text = stamped(self._rest)
        else:
            event.payload.data.media.media_type = MEDIA_TYPE_VIDEO
            event.payload.data.media.encoding = MEDIA_ENCODING_BINARY
            event.payload.data.media.is_partial = True
            event.payload.data.media.binary = stamped(self._rest).encode()
        return self._message.SerializeToString()

    def publish(self, stream: int) -> None:
        self._publishers[stream].send(self.event(stream))

    async def listen(self, call: Call, ready: asyncio.Future[None], read: Callable[[bytes], None]) -> None:
        await ready
        call.on_message = read


class Relay(_Grpc):
    """The bare relay: topics come with the metadata, and messages are forwarded as they are."""

    async def open(self, count: int) -> None:
        """See `Wire`."""
        await self.connect()
        self._topics = [uuid.uuid4().hex for _ in range(count)]
        for number, topic in enumerate(self._topics):
            call = self.connection().call(f"{SERVICE}/Publish", lambda _: None, self.end, [("topic", topic)])
            self._publishers.append(call)
            self._sequences.append(0)
            self.publish(number)
        await asyncio.sleep(0.5)  # nothing tells that the first message is there

    async def subscribe(self, stream: int, read: Callable[[bytes], None]) -> None:
        """See `Wire`."""
        ready = asyncio.get_running_loop().create_future()
        metadata = [("topic", self._topics[stream])]
        call = self.connection().call(f"{SERVICE}/Subscribe", _once(ready), self.end, metadata)
        call.send(b"")
        call.finish()
        await self.listen(call, ready, read)

    async def close(self) -> None:
        """See `Wire`."""
        self.is_closing = True
        for connection in self._connections:
            connection.close()


class Broker(_Grpc):
    """The stream service of the mesh."""

    def __init__(self, target: str, size: int, connections: int) -> None:
        super().__init__(target, size, connections)
        self.ids: list[str] = []
        self.tokens: list[str] = []
        self.acknowledged: list[int] = []
        self._progress = asyncio.Event()
        self.limits = stream_pb2.StreamLimits()

    async def open(self, count: int) -> None:
        """See `Wire`."""
        await self.connect()
        for begin in range(0, count, _AT_ONCE):
            await asyncio.gather(*(self.open_one() for _ in range(begin, min(count, begin + _AT_ONCE))))
        for begin in range(0, count, _AT_ONCE):
            numbers = range(begin, min(count, begin + _AT_ONCE))
            await asyncio.gather(*(self.start(number) for number in numbers))

    async def open_one(self) -> int:
        """Open a stream and return its number here."""
        request = stream_service_pb2.OpenStreamRequest(limits=self.limits)
        answer = await self.connection().unary(f"{SERVICE}/OpenStream", request.SerializeToString())
        response = stream_service_pb2.OpenStreamResponse.FromString(answer)
        self.ids.append(response.stream_id)
        self.tokens.append(response.publish_token)
        self._sequences.append(0)
        self.acknowledged.append(0)
        return len(self.ids) - 1

    async def start(self, number: int) -> None:
        """Become the publisher of a stream and send its first event."""
        opened = asyncio.get_running_loop().create_future()
        call = self.connection().call(f"{SERVICE}/Publish", _once(opened), self.end)
        opening = stream_service_pb2.PublishRequest()
        opening.open.stream_id, opening.open.publish_token = self.ids[number], self.tokens[number]
        call.send(opening.SerializeToString())
        self._place(number, call)
        await opened

        def answered(message: bytes) -> None:
            if message[:1] == b"\x12":  # an ack
                self.acknowledged[number] = stream_service_pb2.PublishResponse.FromString(message).ack.sequence
                self._progress.set()

        call.on_message = answered
        self._sequences[number] = 1
        start = stream_service_pb2.PublishRequest()
        start.event.sequence, start.event.event_type = 1, stream_pb2.STREAM_EVENT_TYPE_STREAM_START
        call.send(start.SerializeToString())

    def _place(self, number: int, call: Call) -> None:
        while len(self._publishers) <= number:
            self._publishers.append(call)
        self._publishers[number] = call

    async def progress(self) -> None:
        """Wait until some stream has an acknowledgement more."""
        self._progress.clear()
        await self._progress.wait()

    def unacknowledged(self, stream: int) -> int:
        """Return how many events of a stream are on their way."""
        return self._sequences[stream] - self.acknowledged[stream]

    async def subscribe(
        self, stream: int, read: Callable[[bytes], None], *, heartbeat_seconds: float = 0, wait: bool = True
    ) -> None:
        """See `Wire`; without a first event there is nothing to wait for."""
        request = stream_service_pb2.SubscribeRequest(stream_id=self.ids[stream])
        if heartbeat_seconds:
            request.heartbeat_interval.FromNanoseconds(int(heartbeat_seconds * 1e9))
        ready = asyncio.get_running_loop().create_future()

        def checked(message: bytes) -> None:
            if message[:1] != b"\x0a":  # a gap, a heartbeat, a go_away
                self.other_frames += 1
            read(message)

        call = self.connection().call(f"{SERVICE}/Subscribe", _once(ready) if wait else checked, self.end)
        call.send(request.SerializeToString())
        call.finish()
        if wait:
            await self.listen(call, ready, checked)

    async def close(self) -> None:
        """End every stream, so that it no longer counts as live."""
        self.is_closing = True
        for begin in range(0, len(self.ids), _AT_ONCE):
            requests = [
                stream_service_pb2.CloseStreamRequest(stream_id=one).SerializeToString()
                for one in self.ids[begin : begin + _AT_ONCE]
            ]
            await asyncio.gather(*(self.connection().unary(f"{SERVICE}/CloseStream", one) for one in requests))
        for connection in self._connections:
            connection.close()


class _Resp(asyncio.Protocol):
    """A connection to Valkey."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self.on_reply: Callable[[Any], None] = lambda _: None

    @classmethod
    async def to(cls, target: str) -> _Resp:
        host, _, port = target.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self.on_reply(reply)

    def send(self, *words: bytes | str | int) -> None:
        self.transport.write(hiredis.pack_command(cast("Any", words)))


class _Valkey:
    def __init__(self, target: str, size: int, connections: int) -> None:
        self._target = target
        self._rest = filler(size)
        self._readers: list[_Resp] = []
        self.ended_early = 0
        self.other_frames = 0

    async def open(self, count: int) -> None:
        """See `Wire`."""
        self._keys = [f"bench:{uuid.uuid4().hex}" for _ in range(count)]
        self._writer = await _Resp.to(self._target)
        for number in range(count):
            self.publish(number)

    def publish(self, stream: int) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """See `Wire`."""
        done = asyncio.get_running_loop().create_future()

        def replied(_: object) -> None:
            if not done.done():
                done.set_result(None)

        for reader in self._readers:
            reader.transport.close()
        self._writer.on_reply = replied
        self._writer.send("DEL", *self._keys)
        await done
        self._writer.transport.close()


class Xread(_Valkey):
    """A Valkey stream, read with one blocking XREAD on a connection of its own for each subscriber."""

    def publish(self, stream: int) -> None:
        """See `Wire`."""
        self._writer.send("XADD", self._keys[stream], "MAXLEN", "~", 1000, "*", "e", stamped(self._rest))

    async def subscribe(self, stream: int, read: Callable[[bytes], None]) -> None:
        """See `Wire`."""
        key = self._keys[stream]
        ready = asyncio.get_running_loop().create_future()
        connection = await _Resp.to(self._target)

        def replied(reply: Any) -> None:
            entries = reply[0][1]
            connection.send("XREAD", "BLOCK", 0, "STREAMS", key, entries[-1][0])
            if ready.done():
                read(b"".join([entry[1][1] for entry in entries]))
            else:
                ready.set_result(None)

        connection.on_reply = replied
        self._readers.append(connection)
        connection.send("XREAD", "BLOCK", 0, "STREAMS", key, 0)
        await ready


class Pubsub(_Valkey):
    """PUBLISH and SUBSCRIBE of Valkey, one connection for each subscriber; nothing is kept."""

    def publish(self, stream: int) -> None:
        """See `Wire`."""
        self._writer.send("PUBLISH", self._keys[stream], stamped(self._rest))

    async def subscribe(self, stream: int, read: Callable[[bytes], None]) -> None:
        """See `Wire`."""
        ready = asyncio.get_running_loop().create_future()
        connection = await _Resp.to(self._target)

        def replied(reply: Any) -> None:
            if reply[0] == b"message":
                read(reply[2])
            else:
                ready.set_result(None)

        connection.on_reply = replied
        self._readers.append(connection)
        connection.send("SUBSCRIBE", self._keys[stream])
        await ready


def _once(done: asyncio.Future[None]) -> Callable[[bytes], None]:
    return lambda _: None if done.done() else done.set_result(None)


WIRES: dict[str, type[Broker | Relay | Xread | Pubsub]] = {
    "broker": Broker,
    "relay": Relay,
    "xread": Xread,
    "pubsub": Pubsub,
}
