"""One connection to Valkey, kept while it lasts and made again when it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from mediamesh.wire.errors import Unavailable

__all__ = ["Link", "packed", "refused"]

_CONNECT_SECONDS = 2


class Link:
    """A connection on which packed commands go out together and their replies come back in order.

    This is what a pipeline does, less the packing and the look-ups of callbacks, which cost more than all the rest.

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

    async def exchange(
        self, commands: Sequence[bytes], take: Callable[[int, Any], None], *, seconds: float, teach: bool = False
    ) -> None:
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
                await self._connect(teach=teach)
                await self._connection.send_packed_command(commands, check_health=False)
                for index in range(len(commands)):
                    take(index, await self._reply())
        except (RedisError, OSError, RuntimeError) as error:  # the last is uvloop's, for a connection that is closed
            await self.close()
            raise Unavailable(f"The store of streams (Valkey) cannot be reached: {str(error) or 'too slow'}") from error
        except BaseException:
            # Replies are still to come on it.
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)

    async def _connect(self, *, teach: bool) -> None:
        connection = self._connection
        if connection.is_connected and await connection.can_read():
            # Nothing was asked for: it is the end, as when Valkey was started again.
            await self.close()
        if not connection.is_connected:
            await connection.connect()
            teach = True
        for script in self._scripts if teach else ():
            await connection.send_command("SCRIPT", "LOAD", script)
            await connection.read_response()

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error


def packed(words: tuple[bytes | str | float, ...]) -> bytes:
    """Return a command as it travels."""
    # The types that hiredis declares say that a command has one word.
    pack: Any = hiredis.pack_command
    command: bytes = pack(words)
    return command


def refused(error: ResponseError) -> Unavailable:
    """Return the error for a command that Valkey did not do, such as while it loads its files."""
    return Unavailable(f"The store of streams (Valkey) refuses: {error}")
