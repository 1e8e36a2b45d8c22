"""Which agents there are, and where."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self

from mediamesh.client.agents import AgentClient
from mediamesh.client.channel import connect
from mediamesh.orchestrator.builtin import BUILTIN
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Unavailable

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

__all__ = ["Catalog"]

_LOG = logging.getLogger(__name__)
_HURRY_SECONDS = 1.0
# What an agent may have sent before its run takes it. What waits here holds up nobody: it is to be little.
_READ_AHEAD_BYTES = 256 * 1024


class _Server:
    """One agent server: what it said last, and why it says nothing now."""

    def __init__(self, address: str, client: AgentClient) -> None:
        self.address = address
        self.client = client
        self.manifests: dict[str, Manifest] = {}
        self.trouble = "it was not asked yet"
        self.was_heard = False

    async def ask(self, timeout: float) -> None:
        before = self.trouble
        try:
            async with asyncio.timeout(timeout):
                described = await self.client.describe()
        except (TimeoutError, DeadlineExceeded):
            self.trouble = f"it did not answer within {timeout:g} s"
        except MeshError as error:
            self.trouble = error.text or type(error).__name__
        else:
            self.trouble, self.was_heard = "", True
            self.manifests = {manifest.id: manifest for manifest in described.agents}
        if bool(before) != bool(self.trouble):
            _LOG.info("agents at %s: %s", self.address, self.trouble or ", ".join(self.manifests))


class Catalog:
    """The agents of all agent servers, and those that the orchestrator knows by itself.

    A server that cannot be reached is asked again every second. Its agents stay known, as a flow that names them is not
    wrong: such a node fails, with the reason, when it runs.
    """

    def __init__(self, servers: Sequence[_Server], *, refresh_seconds: float, timeout_seconds: float) -> None:
        self._servers = servers
        self._refresh_seconds = refresh_seconds
        self._timeout = timeout_seconds
        self._asking: asyncio.Lock = asyncio.Lock()
        self._round = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, addresses: Sequence[str], *, refresh_seconds: float, timeout_seconds: float
    ) -> AsyncGenerator[Self]:
        """Connect to the servers and keep asking them."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            servers = list[_Server]()
            for address in dict.fromkeys(addresses):
                channel = connect(address, read_ahead_bytes=_READ_AHEAD_BYTES)
                servers.append(_Server(address, AgentClient(await stack.enter_async_context(channel))))
            catalog = cls(servers, refresh_seconds=refresh_seconds, timeout_seconds=timeout_seconds)
            asking = tasks.create_task(catalog._keep_asking())
            try:
                yield catalog
            finally:
                asking.cancel()

    def agents(self) -> dict[str, Manifest]:
        """Return every agent that is known, by id; of several versions that of the first server."""
        known: dict[str, Manifest] = {}
        for server in (*(s for s in self._servers if not s.trouble), *(s for s in self._servers if s.trouble)):
            for agent_id, manifest in server.manifests.items():
                known.setdefault(agent_id, manifest)
        return dict(sorted({**known, **BUILTIN}.items()))

    @property
    def is_whole(self) -> bool:
        """Whether every server has said at some time what it runs."""
        return all(server.was_heard for server in self._servers)

    def unreachable(self) -> list[str]:
        """Return a sentence for each server that cannot be asked now."""
        return [
            f"The agent server at {server.address} cannot be reached: {server.trouble.rstrip('.')}."
            for server in self._servers
            if server.trouble
        ]

    def client(self, agent_id: str, attempt: int) -> AgentClient:
        """Return a server that runs the agent, those first that answered last; another one at another attempt.

        Raises:
            Unavailable: none does.
        """
        by_health: dict[bool, list[_Server]] = defaultdict(list)
        for server in self._servers:
            if agent_id in server.manifests:
                by_health[not server.trouble].append(server)
        found = by_health[True] + by_health[False]
        if not found:
            raise Unavailable(f"No agent server runs `{agent_id}` now.")
        return found[(attempt - 1) % len(found)].client

    async def refresh(self) -> None:
        """Ask all servers; who comes while that goes on waits for the same answers."""
        seen = self._round
        async with self._asking:
            if self._round != seen:
                return
            async with asyncio.TaskGroup() as tasks:
                for server in self._servers:
                    tasks.create_task(server.ask(self._timeout))
            self._round += 1

    async def _keep_asking(self) -> None:
        while True:
            await self.refresh()
            hurry = any(server.trouble for server in self._servers)
            await asyncio.sleep(min(_HURRY_SECONDS, self._refresh_seconds) if hurry else self._refresh_seconds)
