"""``python -m mediamesh.edge`` runs the server for WebSockets until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys

from mediamesh.edge.serve import serving
from mediamesh.edge.settings import Settings
from mediamesh.kit.logs import configure_logs
from mediamesh.kit.serve import until_signalled
from mediamesh.kit.settings import CommonSettings, SettingsError
from mediamesh.kit.telemetry import telemetry

__all__ = ["main"]

_LOG = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM, then exit: 0 when drained, 2 when a setting is wrong."""
    try:
        common = CommonSettings.load()
        settings = Settings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logs(common)
    with telemetry("edge", common, host=settings.host, metrics_port=settings.metrics_port):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with serving(settings) as port:
        _LOG.info("edge on %s:%d", settings.host, port)
        await until_signalled()
        _LOG.info("draining for at most %g s", settings.grace_seconds)


if __name__ == "__main__":
    main()
