"""One connection to Valkey, kept while it lasts and made again when it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import hiredis
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from mediamesh.wire.errors import Unavailable

__all__ = ["Link", "packed", "refused"]

_CONNECT_SECONDS = 5  # a server that stalls for two has not lost Valkey

Take = Callable[[int, Any], None]


class Link:
    """A connection on which packed commands go out together and their replies come back in order.

    This is what a pipeline does, less the packing, the look-ups of callbacks and a coroutine for each reply, which cost
    more than all the rest. The client of Redis connects, and from then on the bytes are ours.

    Args:
        url: Where Valkey is.
        scripts: Lua that it knows after connecting.
    """

    def __init__(self, url: str, *, scripts: Iterable[str] = ()) -> None:
        pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=_CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = pool.make_connection()  # type: ignore[no-untyped-call] # redis has no types for it
        self._scripts = tuple(scripts)
        self._talk: _Talk | None = None

    async def exchange(self, commands: Sequence[bytes], take: Take, *, seconds: float, teach: bool = False) -> None:
        """Send commands and hand each reply over as it comes; one that Valkey refused is a ``ResponseError``.

        Args:
            commands: What to send, packed.
            take: Called with the index of a command and its reply.
            seconds: How long all of it may last.
            teach: Whether to tell Valkey the scripts before, as it has forgotten them.

        Raises:
            Unavailable: the connection broke, could not be made, or was too slow. The commands that `take` was not
                called for may have been done, or not.
        """
        try:
            async with asyncio.timeout(seconds):
                talk = self._talk
                if talk is None or talk.is_over:
                    talk = self._talk = await self._connect()
                    teach = True
                if teach:
                    await self._teach(talk)
                await talk.exchange(commands, take)
        except (RedisError, OSError, RuntimeError) as error:  # the last is uvloop's, for a connection that is closed
            await self.close()
            raise Unavailable(f"The store of streams (Valkey) cannot be reached: {str(error) or 'too slow'}") from error
        except BaseException:
            # Replies are still to come on it.
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        self._talk = None
        await self._connection.disconnect(nowait=True)

    async def _connect(self) -> _Talk:
        await self._connection.disconnect(nowait=True)
        await self._connection.connect()
        transport = self._connection._writer.transport  # noqa: SLF001 - nothing public gives it away
        talk = _Talk(transport)
        transport.set_protocol(talk)
        return talk

    async def _teach(self, talk: _Talk) -> None:
        replies: list[Any] = []
        load = [packed(("SCRIPT", "LOAD", script)) for script in self._scripts]
        await talk.exchange(load, lambda _, reply: replies.append(reply))
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply


class _Talk(asyncio.Protocol):
    """What is said on one connection, until it is over."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_over = False
        self._transport = transport
        self._reader = hiredis.Reader(replyError=cast("Any", _error))
        self._loop = asyncio.get_running_loop()
        self._take: Take | None = None
        self._next = self._count = 0
        self._answered: asyncio.Future[None] | None = None

    async def exchange(self, commands: Sequence[bytes], take: Take) -> None:
        """Send commands and wait until each reply is handed over."""
        if not commands:
            return
        if self.is_over:
            raise ConnectionResetError("the connection is closed")
        self._take, self._next, self._count = take, 0, len(commands)
        self._answered = self._loop.create_future()
        self._transport.writelines(commands)
        await self._answered

    def data_received(self, data: bytes) -> None:
        """Hand over the replies that are whole."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if self._take is None or self._next >= self._count:  # to nothing that was asked
                self._transport.abort()
                return
            index, self._next = self._next, self._next + 1
            self._take(index, reply)
        if self._next == self._count and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits; the next one connects again."""
        self.is_over = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError(str(exc or "the connection was closed")))


def _error(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


def packed(words: tuple[bytes | str | float, ...]) -> bytes:
    """Return a command as it travels."""
    # The types that hiredis declares say that a command has one word.
    pack: Any = hiredis.pack_command
    command: bytes = pack(words)
    return command


def refused(error: ResponseError) -> Unavailable:
    """Return the error for a command that Valkey did not do, such as while it loads its files."""
    return Unavailable(f"The store of streams (Valkey) refuses: {error}")
