"""Which streams there are in Valkey, and where each stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mediamesh.api.stream.v1.stream_pb2 import StreamState
from mediamesh.streams.log.keys import LIVE, buffer_of, index_of, meta_of
from mediamesh.streams.log.lane import Command, Lane
from mediamesh.streams.log.packing import stored_from
from mediamesh.streams.log.ports import Stored
from mediamesh.streams.log.snapshot import unreadable

__all__ = ["Registry"]

_SWEEP_EVERY = 8
_SAMPLE = 3 * _SWEEP_EVERY
_STEP = 100
_LONGEST_LIFE_MS = 86_400_000


class Registry:
    """Finds streams.

    The index of a workspace holds ids only, and nothing tells it that a stream expired. Every eighth new stream looks
    at some of it, chosen by chance, and takes out those that are gone; so it has half as many too many at most, on the
    whole.
    """

    def __init__(self, lane: Lane, *, meta_ttl_ms: int) -> None:
        self._lane = lane
        self._meta_ttl_ms = meta_ttl_ms
        self._added = 0

    async def load(self, stream_ids: Sequence[str]) -> list[Stored]:
        """See `StreamStore.load`."""
        answers = await self._lane.together(*(("HGETALL", meta_of(stream_id)) for stream_id in stream_ids))
        found = [stored for fields in answers if (stored := stored_from(fields)) is not None]
        # The events of a stream that lives are kept as long as all else about it.
        ended = [index for index, stored in enumerate(found) if stored.stream.HasField("end")]
        there = await self._lane.together(*(("EXISTS", buffer_of(found[index].stream.stream_id)) for index in ended))
        for index, kept in zip(ended, there, strict=True):
            if not kept:
                found[index] = unreadable(found[index])
        return found

    async def page(
        self, workspace_id: str, *, execution_id: str, live_only: bool, before: str, limit: int
    ) -> list[Stored]:
        """See `StreamStore.page`."""

        def wanted(stored: Stored) -> bool:
            stream = stored.stream
            return (
                stream.workspace_id == workspace_id
                and (not execution_id or stream.execution_id == execution_id)
                and (not live_only or stream.state == StreamState.STREAM_STATE_LIVE)
            )

        if live_only:
            return await self._page_of_live(wanted, before, limit)
        found: list[Stored] = []
        top = f"({before}" if before else "+"
        while len(found) < limit:
            ids = await self._lane.call("ZREVRANGEBYLEX", index_of(workspace_id), top, "-", "LIMIT", 0, _STEP)
            found += filter(wanted, await self.load([known.decode() for known in ids]))
            if len(ids) < _STEP:
                break
            top = f"({ids[-1].decode()}"
        return found[:limit]

    async def _page_of_live(self, wanted: Callable[[Stored], bool], before: str, limit: int) -> list[Stored]:
        """Look at those that live, of all workspaces: they are fewer than those that ended."""
        ids = [known.decode() for known in await self._lane.call("ZRANGE", LIVE, 0, -1)]
        ids = sorted((known for known in ids if not before or known < before), reverse=True)
        found: list[Stored] = []
        for start in range(0, len(ids), _STEP):
            found += filter(wanted, await self.load(ids[start : start + _STEP]))
            if len(found) >= limit:
                break
        return found[:limit]

    def index(self, workspace_id: str, stream_id: str) -> tuple[Command, Command]:
        """Return the commands that put a stream into the index of its workspace."""
        index = index_of(workspace_id)
        return ("ZADD", index, 0, stream_id), ("PEXPIRE", index, _LONGEST_LIFE_MS + self._meta_ttl_ms)

    async def tidy(self, workspace_id: str) -> None:
        """Note that a stream was put into the index of a workspace; take out some that are gone, now and then."""
        self._added += 1
        if self._added % _SWEEP_EVERY:
            return
        index = index_of(workspace_id)
        sample = await self._lane.call("ZRANDMEMBER", index, _SAMPLE)
        there = await self._lane.together(*(("EXISTS", meta_of(known.decode())) for known in sample))
        if gone := [known for known, found in zip(sample, there, strict=True) if not found]:
            await self._lane.call("ZREM", index, *gone)
