"""Runs gRPC servers for as long as a block lasts."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mediamesh.kit.boundary import Boundary
from mediamesh.kit.reflection import service_names
from mediamesh.kit.settings import ServerSettings

__all__ = ["Part", "serving", "until_signalled"]

_LOG = logging.getLogger(__name__)
_HEALTH_PERIOD_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a server package contributes to a process.

    Attributes:
        services: Full names of its services, for health and reflection.
        register: Adds its servicers to a server.
        check: Raises when something that it depends on is not there; asked every second.
        drain: Awaited first when the server stops, with health already NOT_SERVING: tells long streams to go away.
    """

    services: Sequence[str]
    register: Callable[[grpc.aio.Server], None]
    check: Callable[[], Awaitable[None]] | None = None
    drain: Callable[[], Awaitable[None]] | None = field(default=None)


@asynccontextmanager
async def serving(settings: ServerSettings, *parts: Part) -> AsyncGenerator[int]:
    """Serve the parts on one port, yield it, then drain.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.aio.server(
        interceptors=[Boundary()],
        maximum_concurrent_rpcs=settings.max_concurrent_calls,
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            # Above 1000 calls that wait to be accepted grpc cancels at random; the limit that counts is ours.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            ("grpc.so_reuseport", 0),
            # The door and our clients ask every few seconds whether a connection holds. gRPC takes that for abuse: it
            # broke off every stream that was silent for two minutes.
            ("grpc.http2.max_ping_strikes", 0),
            # A client that vanished without a word must not be served, and waited for, until TCP gives up.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            *_windows(settings),
        ],
    )
    for part in parts:
        part.register(server)
    status = health.aio.HealthServicer()
    # The servicer says SERVING of the whole server until it is told otherwise.
    await status.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if settings.reflection:
        names = {name for part in parts for name in part.services}
        reflection.enable_server_reflection(sorted(names.union(service_names())), server)
    try:
        port = server.add_insecure_port(f"{settings.host}:{settings.port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}") from error
    await server.start()
    # Not a TaskGroup: it would wrap what the caller's block raises, and the watch raises nothing.
    watch = asyncio.create_task(_watch_health(status, parts))
    try:
        yield port
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await status.enter_graceful_shutdown()
        for part in parts:
            if part.drain is not None:
                await part.drain()
        await server.stop(settings.grace_seconds)


def _windows(settings: ServerSettings) -> list[tuple[str, int]]:
    if settings.read_ahead_bytes is None:
        return []
    # As long as gRPC measures the bandwidth, it lets windows grow: 100 uploads of 3 MB were all in memory at once.
    return [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", settings.read_ahead_bytes)]


async def _watch_health(status: health.aio.HealthServicer, parts: Sequence[Part]) -> None:
    """Keep the health of every part true; the server as a whole is as healthy as all of them."""
    known: dict[str, bool] = {}
    while True:
        everything = True
        for part in parts:
            well = await _is_well(part)
            everything = everything and well
            for name in part.services:
                await _set(status, known, name, well=well)
        await _set(status, known, "", well=everything)
        await asyncio.sleep(_HEALTH_PERIOD_SECONDS)


async def _is_well(part: Part) -> bool:
    if part.check is None:
        return True
    try:
        async with asyncio.timeout(2 * _HEALTH_PERIOD_SECONDS):
            await part.check()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the part is not well
        _LOG.warning("%s is not ready: %s", part.services[0], error or type(error).__name__)
        return False
    return True


async def _set(status: health.aio.HealthServicer, known: dict[str, bool], name: str, *, well: bool) -> None:
    if known.get(name) is not well:
        known[name] = well
        state = health_pb2.HealthCheckResponse
        await status.set(name, state.SERVING if well else state.NOT_SERVING)


async def until_signalled(stop: asyncio.Event | None = None) -> None:
    """Wait for SIGTERM or SIGINT, or for an event that is set for another reason."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with suppress(asyncio.CancelledError):
        await stop.wait()
