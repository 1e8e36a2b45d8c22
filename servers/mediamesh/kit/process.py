"""Runs server packages as a process: ``python -m mediamesh.media`` and ``mediamesh serve media inference``."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mediamesh.kit.logs import configure_logs
from mediamesh.kit.serve import serving, until_signalled
from mediamesh.kit.settings import CommonSettings, ServerSettings, SettingsError
from mediamesh.kit.telemetry import telemetry
from mediamesh.kit.wakeups import take_wakeups_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mediamesh.kit.serve import Part

__all__ = ["SERVERS", "main"]

_LOG = logging.getLogger(__name__)
SERVERS = ("media", "inference", "agents", "streams", "orchestrator")


def main(*names: str) -> None:
    """Serve the named packages on one port until SIGTERM, then exit: 0 when drained, 2 when a setting is wrong.

    Where and how the process listens is said by the settings of the first one.
    """
    try:
        common = CommonSettings.load()
        settings = [_settings(name) for name in names]
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logs(common)
    with (
        telemetry(names[0], common, host=settings[0].host, metrics_port=settings[0].metrics_port),
        asyncio.Runner(loop_factory=_loop_factory(settings[0])) as runner,
    ):
        runner.run(_serve(names, settings))


async def _serve(names: Sequence[str], settings: Sequence[ServerSettings]) -> None:
    take_wakeups_together()
    async with AsyncExitStack() as stack:
        parts: list[Part] = []
        for name, own in zip(names, settings, strict=True):
            module = importlib.import_module(f"mediamesh.{name}.app")
            parts.append(await stack.enter_async_context(module.app(own)))
        port = await stack.enter_async_context(serving(settings[0], *parts))
        _LOG.info("%s on %s:%d", " + ".join(names), settings[0].host, port)
        # What is there now stays. A collection that looked at it too would hold up every call for tens of milliseconds.
        gc.freeze()
        await until_signalled()
        _LOG.info("draining for at most %g s", settings[0].grace_seconds)


def _loop_factory(settings: ServerSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if settings.event_loop == "uvloop" and find_spec("uvloop"):
        loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return loop
    return None


def _settings(name: str) -> ServerSettings:
    module = importlib.import_module(f"mediamesh.{name}.settings")
    loaded: ServerSettings = module.Settings.load()
    return loaded
