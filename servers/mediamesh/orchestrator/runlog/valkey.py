"""Runs in Valkey: a stream for the events of each, a hash for where it stands, a key that dies with its orchestrator.

Keys: ``mm:run:{ID}:log``, ``mm:run:{ID}:run``, ``mm:run:{ID}:lease`` (one slot in a cluster); ``mm:runs:WORKSPACE``,
ids in order; ``mm:runs:open``, runs that go on, by when their lease lapses in milliseconds since 1970 unless it is
renewed; ``mm:orchestrator:REPLICA``, letters to a replica. Each has a TTL. The id of an entry is its event's sequence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from typing import Any, Self

from redis import asyncio as redis
from redis.exceptions import RedisError

from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent
from mediamesh.orchestrator.runlog.identity import oldest_id
from mediamesh.orchestrator.runlog.parts import assembled, inputs_part, parts_of
from mediamesh.orchestrator.runlog.ports import Batch, Fenced, Stored
from mediamesh.orchestrator.runlog.scripts import APPEND, ASK_TO_CANCEL, RELEASE, RENEW
from mediamesh.wire.errors import Unavailable

__all__ = ["ValkeyStore"]

_BLOCK_MS = 2000
_READ_COUNT = 200
_LETTERS = 1000
_LONGEST_RUN_SECONDS = 86_400
_OPEN = "mm:runs:open"
_SUSPECTS = 1000
_RENEWED = 1


class ValkeyStore:
    """The event log and the registry of runs in Valkey."""

    def __init__(self, url: str, *, replica: str, ttl_seconds: float, lease_seconds: float) -> None:
        # Commands share a pool that makes the next one wait; the reader blocks, and so has a connection of its own.
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=16, timeout=10, socket_timeout=5, protocol=2)
        self._commands: Any = redis.Redis.from_pool(pool)
        self._reader: Any = redis.Redis.from_url(url, socket_timeout=5 + _BLOCK_MS / 1000, protocol=2)
        self._append = self._commands.register_script(APPEND)
        self._renew = self._commands.register_script(RENEW)
        self._release = self._commands.register_script(RELEASE)
        self._ask_to_cancel = self._commands.register_script(ASK_TO_CANCEL)
        self._replica = replica
        self._ttl_ms = round(ttl_seconds * 1000)
        self._lease_ms = round(lease_seconds * 1000)
        self._mail_position: bytes = b"0-0"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, *, replica: str, ttl_seconds: float, lease_seconds: float) -> AsyncGenerator[Self]:
        """Yield the store; whether Valkey is there shows at the first use."""
        store = cls(url, replica=replica, ttl_seconds=ttl_seconds, lease_seconds=lease_seconds)
        try:
            yield store
        finally:
            await store._commands.aclose()
            await store._reader.aclose()

    async def check(self) -> None:
        """Ask Valkey whether it is there.

        Raises:
            Unavailable: it is not.
        """
        with _reached():
            await self._commands.ping()

    async def append(self, batch: Batch) -> None:
        """See `EventLog.append`."""
        mode = "claim" if batch.claim else "abandoned" if batch.abandoned else "own"
        numbers = (batch.events[0].sequence, self._ttl_ms, self._lease_ms, batch.floor, int(batch.ended), mode,
                   batch.fence, len(batch.events))  # fmt: skip
        events = [event.SerializeToString(deterministic=True) for event in batch.events]
        changed = [part for pair in batch.changed.items() for part in pair]
        with _reached():
            done = await self._append(keys=_keys(batch.execution_id), args=[self._replica, *numbers, *events, *changed])
        if not done:
            raise Fenced(batch.execution_id)
        if batch.ended:
            await self.forget(batch.execution_id)
        elif batch.claim:
            await self._mark_open([batch.execution_id])

    async def read(self, execution_id: str, after: int, limit: int) -> list[ExecutionEvent]:
        """See `EventLog.read`."""
        with _reached():
            entries = await self._commands.xrange(_keys(execution_id)[0], min=f"{after + 1}-0", count=limit)
        return [ExecutionEvent.FromString(fields[b"e"]) for _, fields in entries]

    async def poll(self, positions: Mapping[str, int]) -> tuple[list[ExecutionEvent], list[str]]:
        """See `EventLog.poll`."""
        mail = self._mailbox(self._replica)
        streams = {mail: self._mail_position, **{_keys(run)[0]: f"{last}-0" for run, last in positions.items()}}
        with _reached():
            found = await self._reader.xread(streams, count=_READ_COUNT, block=_BLOCK_MS)
        events, cancelled = [], []
        for key, entries in found:
            for entry, fields in entries:
                if key == mail.encode():
                    self._mail_position = entry
                    if cancel := fields.get(b"cancel"):
                        cancelled.append(cancel.decode())
                else:
                    events.append(ExecutionEvent.FromString(fields[b"e"]))
        return events, cancelled

    async def wake(self) -> None:
        """See `EventLog.wake`."""
        await self._post(self._replica, {"wake": "1"})

    async def create(self, execution: Execution) -> None:
        """See `RunRegistry.create`."""
        _, run, lease = _keys(execution.execution_id)
        index = self._index(execution.workspace_id)
        longest_ms = self._ttl_ms + _LONGEST_RUN_SECONDS * 1000
        with _reached():
            async with self._commands.pipeline(transaction=False) as pipe:
                pipe.set(lease, self._replica, px=self._lease_ms)
                pipe.hset(run, mapping=parts_of(execution) | inputs_part(execution))
                pipe.pexpire(run, self._ttl_ms)
                pipe.zadd(_OPEN, {execution.execution_id: self._lapses()})
                pipe.pexpire(_OPEN, longest_ms)
                pipe.zadd(index, {execution.execution_id: 0})
                pipe.zremrangebylex(index, "-", f"({oldest_id(longest_ms / 1000)}")
                pipe.pexpire(index, longest_ms)
                await pipe.execute()

    async def discard(self, execution: Execution) -> None:
        """See `RunRegistry.discard`."""
        with _reached():
            async with self._commands.pipeline(transaction=False) as pipe:
                pipe.delete(*_keys(execution.execution_id))
                pipe.zrem(_OPEN, execution.execution_id)
                pipe.zrem(self._index(execution.workspace_id), execution.execution_id)
                await pipe.execute()

    async def load(self, execution_ids: Sequence[str]) -> list[Stored]:
        """See `RunRegistry.load`."""
        with _reached():
            async with self._commands.pipeline(transaction=False) as pipe:
                for execution_id in execution_ids:
                    log, run, lease = _keys(execution_id)
                    pipe.exists(lease)
                    pipe.hgetall(run)
                    pipe.xrevrange(log, count=1)
                answers = await pipe.execute()
        stored = []
        for held, parts, last in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
            if parts:
                newest = int(last[0][0].split(b"-")[0]) if last else 0
                named = {name.decode(): part for name, part in parts.items()}
                execution = assembled(named, newest)
                fence, cancelled = int(named.get("fence", b"0")), "cancelled" in named
                stored.append(Stored(execution, held=bool(held), fence=fence, cancelled=cancelled))
        return stored

    async def page(self, workspace_id: str, before: str, limit: int) -> list[str]:
        """See `RunRegistry.page`."""
        top = f"({before}" if before else "+"
        with _reached():
            ids = await self._commands.zrevrangebylex(self._index(workspace_id), top, "-", start=0, num=limit)
        return [found.decode() for found in ids]

    async def renew(self, fences: Mapping[str, int]) -> list[str]:
        """See `RunRegistry.renew`."""
        with _reached():
            async with self._commands.pipeline(transaction=False) as pipe:
                for execution_id, fence in fences.items():
                    await self._renew(
                        keys=_keys(execution_id), args=[self._replica, self._ttl_ms, self._lease_ms, fence], client=pipe
                    )
                answers = await pipe.execute()
        told = dict(zip(fences, answers, strict=True))
        # A run that has ended meanwhile is not there any more, and stays away.
        await self._mark_open([execution_id for execution_id, answer in told.items() if answer], known=True)
        return [execution_id for execution_id, answer in told.items() if answer != _RENEWED]

    async def release(self, execution_id: str, fence: int) -> None:
        """See `RunRegistry.release`."""
        with _reached():
            await self._release(keys=_keys(execution_id)[1:], args=[self._replica, fence])
            await self._commands.zadd(_OPEN, {execution_id: 0}, xx=True)

    async def lapsed(self, limit: int) -> list[str]:
        """See `RunRegistry.lapsed`."""
        with _reached():
            found = await self._commands.zrangebyscore(_OPEN, 0, _now_ms(), start=0, num=_SUSPECTS)
            suspects = [execution_id.decode() for execution_id in found]
            # Clocks of replicas differ: whether a lease has lapsed is for Valkey to say.
            async with self._commands.pipeline(transaction=False) as pipe:
                for execution_id in suspects:
                    pipe.exists(_keys(execution_id)[2])
                held = await pipe.execute()
        return [suspect for suspect, is_held in zip(suspects, held, strict=True) if not is_held][:limit]

    async def forget(self, execution_id: str) -> None:
        """See `RunRegistry.forget`."""
        with _reached():
            await self._commands.zrem(_OPEN, execution_id)

    async def ask_to_cancel(self, execution_id: str) -> None:
        """See `RunRegistry.ask_to_cancel`."""
        with _reached():
            holder = await self._ask_to_cancel(keys=_keys(execution_id)[1:], args=[])
        if holder is not None:
            await self._post(holder.decode(), {"cancel": execution_id})

    async def _mark_open(self, execution_ids: Iterable[str], *, known: bool = False) -> None:
        if marks := dict.fromkeys(execution_ids, self._lapses()):
            with _reached():
                await self._commands.zadd(_OPEN, marks, xx=known)

    def _lapses(self) -> int:
        return _now_ms() + self._lease_ms

    async def _post(self, replica: str, letter: dict[str, str]) -> None:
        mailbox = self._mailbox(replica)
        with _reached():
            async with self._commands.pipeline(transaction=False) as pipe:
                pipe.xadd(mailbox, letter, maxlen=_LETTERS)
                pipe.pexpire(mailbox, max(60_000, 4 * self._lease_ms))
                await pipe.execute()

    @staticmethod
    def _mailbox(replica: str) -> str:
        return f"mm:orchestrator:{replica}"

    @staticmethod
    def _index(workspace_id: str) -> str:
        return f"mm:runs:{workspace_id}"


def _keys(execution_id: str) -> list[str]:
    return [f"mm:run:{{{execution_id}}}:{part}" for part in ("log", "run", "lease")]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def _reached() -> Generator[None]:
    try:
        yield
    except (RedisError, OSError, RuntimeError) as error:  # the last is uvloop's, for a connection that is closed
        raise Unavailable(f"The log of runs (Valkey) cannot be reached: {error}") from error
