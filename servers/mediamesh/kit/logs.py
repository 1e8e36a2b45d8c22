"""Logs: one line an event, for people or as JSON, each with the trace that it belongs to."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from mediamesh.kit.settings import CommonSettings

__all__ = ["configure_logs"]


class _Trace(logging.Filter):
    """Adds ``trace_id`` and ``span_id`` to every record; empty outside of a trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
        record.span_id = f"{context.span_id:016x}" if context.is_valid else ""
        return True


def configure_logs(settings: CommonSettings) -> None:
    """Send all records of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Trace())
    if settings.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s %(trace_id)s %(span_id)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s [%(trace_id).8s]", "%H:%M:%S")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # Libraries speak up from warnings on; their debug output is not ours.
    for name in ("aiobotocore", "botocore", "urllib3", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
