"""Which server gets a request, and where it goes when that one fails.

A request goes to the server with the fewest unanswered ones. A server that cannot be reached is left alone until it
answers a probe, at intervals that double; one that says that it has no such model is passed over for a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from mediamesh.wire.errors import (
    Cancelled,
    MeshError,
    NotFound,
    Overloaded,
    StreamInterrupted,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.client.inference.server import Server

__all__ = ["Pool", "Search"]

_PROBE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 0.5


class Pool:
    """The servers of a client.

    Args:
        servers: All of them; at least one.
        patience: Seconds for which a request looks for a server while all are away.
        tasks: Where servers are probed, if there are several.

    Attributes:
        is_closed: The client was left; nothing is tried again.
    """

    def __init__(self, servers: Sequence[Server], patience: float, tasks: asyncio.TaskGroup) -> None:
        self.servers = servers
        self.patience = patience
        self.is_closed = False
        self._ejected = {server: asyncio.Event() for server in servers}
        self._turn = 0
        # One server is asked whatever is believed of it; probing it would change nothing.
        probed = servers if len(servers) > 1 else ()
        self._probes = [tasks.create_task(self._probe(server)) for server in probed]

    def close(self) -> None:
        """Stop probing and leave all streams."""
        self.is_closed = True
        for task in self._probes:
            task.cancel()
        for server in self.servers:
            server.close()

    def choose(self, model: str, tried: Sequence[Server] = ()) -> Server:
        """Return the server to ask: one believed to be there, with the fewest unanswered requests."""
        left = [server for server in self.servers if server not in tried] or self.servers
        chosen = min(
            left, key=lambda server: (bool(server.failures), server.lacks(model), server.outstanding, server.turn)
        )
        self._turn += 1
        chosen.turn = self._turn
        return chosen

    def eject(self, server: Server) -> None:
        """Leave a server alone until it answers a probe, or a request that nobody else could take."""
        server.eject()
        self._ejected[server].set()

    async def _probe(self, server: Server) -> None:
        ejected = self._ejected[server]
        pause = _PROBE_SECONDS * random.random()  # noqa: S311 - spreads the probes of many clients, no secret
        while True:
            try:
                async with asyncio.timeout(pause):
                    await ejected.wait()
                ejected.clear()
                pause = server.backoff
                continue
            except TimeoutError:
                pass
            try:
                await server.probe()
            except MeshError:
                server.eject()
                pause = server.backoff
            else:
                server.failures = 0
                pause = _PROBE_SECONDS


class Search:
    """The way of one request from server to server.

    Args:
        pool: The servers.
        model: The model to run.
        version: Its version; empty for any.
    """

    def __init__(self, pool: Pool, model: str, version: str = "") -> None:
        self._pool, self._model, self._version = pool, model, version
        self._ends = time.monotonic() + pool.patience
        self._round = 0
        self._tried: list[Server] = []
        self._is_any_away = False

    def server(self) -> Server:
        """Return the next server to ask."""
        return self._pool.choose(self._model, self._tried)

    async def failed(self, server: Server, error: MeshError) -> None:
        """Note that a server failed; returns when another try makes sense.

        Raises:
            MeshError: the error itself, when none does.
        """
        await self._judge(server, error)
        self._tried.append(server)
        if len(self._tried) < len(self._pool.servers):
            return
        # All were asked. A connection that broke deserves one more try at once; then only patience helps.
        if self._pool.is_closed or not self._is_any_away or (self._round and time.monotonic() >= self._ends):
            raise error
        if self._round:
            pause = min(_LONGEST_PAUSE_SECONDS, 0.05 * 2**self._round, self._ends - time.monotonic())
            await asyncio.sleep(max(0.0, pause) * random.uniform(0.5, 1))  # noqa: S311 - spreads tries, no secret
        self._round += 1
        self._tried.clear()
        self._is_any_away = False

    async def _judge(self, server: Server, error: MeshError) -> None:
        """Raise unless the request may be sent again: it did not run, or running it twice does no harm."""
        match error:
            case Unavailable() | StreamInterrupted() | Cancelled():
                self._note_away(server, error)
            case NotFound():
                server.note_lack(self._model)
            case Overloaded():
                pass
            case _ if type(error) is MeshError and not error.metadata and len(self._pool.servers) > 1:
                # On a stream Triton tells a sentence and no status; that a model is not there can be asked.
                if await self._has(server):
                    raise error
            case _:
                raise error

    async def _has(self, server: Server) -> bool:
        """Tell whether a server has the model; one that cannot be asked any more has not."""
        try:
            if await server.has(self._model, self._version):
                return True
        except (Unavailable, StreamInterrupted, Cancelled) as error:
            self._note_away(server, error)
        else:
            server.note_lack(self._model)
        return False

    def _note_away(self, server: Server, error: MeshError) -> None:
        self._is_any_away = True
        # A server that names the model is there, and only cannot run it just now.
        if "model" in error.metadata:
            server.note_lack(self._model)
        else:
            self._pool.eject(server)
