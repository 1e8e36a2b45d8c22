"""Publishes the stream pins of a run, so that they can be read on every edge while and after the run goes on.

The run comes first: whatever happens to a stream or to its server is logged and counted, and the run goes on. A stream
that cannot be published to the end is ended with an error, never left short without a word.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from google.rpc import status_pb2
from opentelemetry import metrics

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamLimits
from mediamesh.api.stream.v1.stream_service_pb2 import OpenStreamResponse
from mediamesh.client.streams import Publisher
from mediamesh.orchestrator.execution.inbox import Bounds, Pipe
from mediamesh.wire.errors import MeshError, StreamInterrupted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from mediamesh.api.stream.v1.chunk_pb2 import Chunk
    from mediamesh.orchestrator.execution.journal import Journal

__all__ = ["Broadcast", "Streams"]

_LOG = logging.getLogger(__name__)
_METER = metrics.get_meter("mediamesh.orchestrator")
_STREAMS = _METER.create_counter(
    "mediamesh_flow_streams", description="Stream pins that were published, by how that ended."
)
_GOODBYE_SECONDS = 1.0
_UNACKNOWLEDGED, _UNACKNOWLEDGED_BYTES = 256, 4 * 1024 * 1024

T = TypeVar("T")


class Streams(Protocol):
    """What a run needs of the streams server; `mediamesh.client.streams.StreamClient` is one."""

    async def open(
        self, *, workspace_id: str, execution_id: str, node_id: str, pin_name: str, limits: StreamLimits
    ) -> OpenStreamResponse:
        """Open a stream."""
        ...

    def publish(
        self,
        stream_id: str,
        publish_token: str,
        *,
        max_unacknowledged: int,
        max_unacknowledged_bytes: int,
        patience: float,
    ) -> AbstractAsyncContextManager[Publisher]:
        """Publish to a stream for as long as the block lasts."""
        ...

    async def close(self, stream_id: str, *, reason: str, error: status_pb2.Status) -> Stream:
        """End a stream in place of its producer."""
        ...


@dataclass(slots=True, kw_only=True)
class _Pin:
    """One stream pin on its way.

    Attributes:
        pipe: What is not sent yet.
        error: Why it breaks off; None while it does not.
    """

    node_id: str
    name: str
    limits: StreamLimits
    pipe: Pipe
    error: MeshError | None = None


class Broadcast:
    """The stream pins of one run; use it as a block around the run.

    Args:
        streams: The streams server; None publishes nothing.
        journal: Told when a stream can be read and when it is complete.
        bounds: How much of a pin may wait here; then its producer waits, for as long as the patience lasts.
        patience_seconds: How long to wait for the streams server before a pin goes on unpublished.
        later: Takes work that is left when the run is over, as it does not wait for it.
    """

    def __init__(
        self,
        streams: Streams | None,
        journal: Journal,
        *,
        bounds: Bounds,
        patience_seconds: float,
        later: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._streams = streams
        self._journal = journal
        self._bounds = bounds
        self._patience = patience_seconds
        self._later = later
        self._pins: dict[tuple[str, str], _Pin] = {}
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, traceback)

    def start(self, node_id: str, pin: str, limits: StreamLimits) -> None:
        """Open the stream of a pin, and publish what comes until it ends; a pin that is open stays so."""
        if self._streams is None or (node_id, pin) in self._pins:
            return
        opened = _Pin(node_id=node_id, name=pin, limits=limits, pipe=Pipe(1, self._bounds, None))
        self._pins[node_id, pin] = opened
        self._tasks.add(self._group.create_task(self._carry(self._streams, opened), name=f"stream {node_id}.{pin}"))

    async def put(self, node_id: str, pin: str, chunk: Chunk) -> None:
        """Publish the next chunk of a pin; waits while too much is on its way."""
        if (found := self._pins.get((node_id, pin))) is not None:
            await found.pipe.put(chunk)

    async def end(self, node_id: str, pin: str) -> None:
        """Say that nothing more comes on a pin."""
        if (found := self._pins.get((node_id, pin))) is not None:
            await found.pipe.end()

    async def fail(self, node_id: str, error: MeshError) -> None:
        """End the streams of a node that have not ended with an error."""
        for pin in self._pins.values():
            if pin.node_id == node_id:
                await _break_off(pin, error)

    async def close(self, error: MeshError | None) -> None:
        """End what is open, with an error if the run had one, and wait until all is said; for a while at most."""
        for pin in self._pins.values():
            await _break_off(pin, error or Unavailable("The run is over."))
        if self._tasks:
            seconds = _GOODBYE_SECONDS + (self._patience if error is None else 0)
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def _carry(self, streams: Streams, pin: _Pin) -> None:
        outcome = "lost"
        try:
            outcome = await self._publish(streams, pin)
        except Exception as error:  # noqa: BLE001 - no failure of a stream may fail the run
            _warn(pin, error)
        except asyncio.CancelledError as error:
            _warn(pin, error)
            raise
        finally:
            _STREAMS.add(1, {"outcome": outcome})
            await pin.pipe.leave()

    async def _publish(self, streams: Streams, pin: _Pin) -> str:
        execution = self._journal.execution
        opening = asyncio.ensure_future(
            self._in_time(
                streams.open(
                    workspace_id=execution.workspace_id,
                    execution_id=execution.execution_id,
                    node_id=pin.node_id,
                    pin_name=pin.name,
                    limits=pin.limits,
                )
            )
        )
        try:
            # What is opening would be open with nobody to end it.
            opened = await asyncio.shield(opening)
            await self._publish_to(streams, opened, pin)
        except asyncio.CancelledError:
            self._later(self._end_later(streams, opening, pin.error or Unavailable("The run broke off.")))
            raise
        return "complete" if pin.error is None else "failed"

    async def _publish_to(self, streams: Streams, opened: OpenStreamResponse, pin: _Pin) -> None:
        named = {"stream_id": opened.stream_id, "pin": pin.name}
        await self._journal.record(pin.node_id, stream_available=execution_pb2.StreamAvailable(**named))
        try:
            async with AsyncExitStack() as stack:
                publishing = streams.publish(
                    opened.stream_id,
                    opened.publish_token,
                    max_unacknowledged=_UNACKNOWLEDGED,
                    max_unacknowledged_bytes=_UNACKNOWLEDGED_BYTES,
                    patience=self._patience,
                )
                await self._forward(pin, await self._in_time(stack.enter_async_context(publishing)))
        except (MeshError, TimeoutError) as error:
            await _give_up(streams, opened.stream_id, error)
            raise
        finally:
            # A journal that nobody writes any more takes nothing.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._journal.record(pin.node_id, stream_complete=execution_pb2.StreamComplete(**named))

    async def _end_later(self, streams: Streams, opening: asyncio.Future[OpenStreamResponse], error: MeshError) -> None:
        """End a stream whose run is over and did not wait for it."""
        with suppress(TimeoutError, MeshError):
            opened = await opening
            await self._in_time(streams.close(opened.stream_id, reason="lost", error=error.to_status()))

    async def _forward(self, pin: _Pin, publisher: Publisher) -> None:
        try:
            await self._in_time(publisher.start())
            while (chunk := await _next(pin)) is not None:
                await self._in_time(publisher.send(chunk))
            await self._in_time(publisher.end() if pin.error is None else publisher.fail(pin.error))
        except asyncio.CancelledError:
            with suppress(TimeoutError, MeshError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await publisher.fail(pin.error or Unavailable("The run broke off."))
            raise

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(self._patience):
            return await work


def _warn(pin: _Pin, error: BaseException) -> None:
    text = error.text if isinstance(error, MeshError) else f"{type(error).__name__} {error}"
    _LOG.warning("the stream %s.%s is not published to its end: %s", pin.node_id, pin.name, text)


async def _next(pin: _Pin) -> Chunk | None:
    try:
        return await pin.pipe.get()
    except StreamInterrupted:
        return None


async def _break_off(pin: _Pin, error: MeshError) -> None:
    """Let a stream that has not ended end with an error, after what was put in before."""
    if not pin.pipe.ended and pin.error is None:
        pin.error = error
        await pin.pipe.break_off(pin.node_id)


async def _give_up(streams: Streams, stream_id: str, error: MeshError | TimeoutError) -> None:
    """Tell the readers of a stream that the rest does not come, if its server can be told."""
    told = error if isinstance(error, MeshError) else Unavailable("The streams server took too long.")
    with suppress(TimeoutError, MeshError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await streams.close(stream_id, reason="lost", error=told.to_status())
