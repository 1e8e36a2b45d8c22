"""Traces of a process whose spans nobody collects: calls still have ids, for log lines and for those whom they call.

The SDK makes such a span in tens of microseconds, twice what the rest of a small call takes; here an id is drawn when
somebody asks for it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["UnrecordedTraces"]


class UnrecordedTraces(trace.TracerProvider):
    """Gives tracers whose spans are never recorded."""

    def get_tracer(self, *_args: Any, **_kwargs: Any) -> trace.Tracer:
        """Return the tracer for any module."""
        return _Tracer()


class _Tracer(trace.Tracer):
    def start_span(self, name: str, context: Context | None = None, *_args: Any, **_kwargs: Any) -> trace.Span:
        return _Span(trace.get_current_span(context))

    def start_as_current_span(self, name: str, context: Context | None = None, *_args: Any, **_kwargs: Any) -> Any:
        return trace.use_span(self.start_span(name, context), record_exception=False)


class _Span(trace.NonRecordingSpan):
    def __init__(self, parent: trace.Span) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._parent: trace.Span | None = parent

    def get_span_context(self) -> trace.SpanContext:
        if self._parent is not None:
            parent = self._parent.get_span_context()
            self._parent = None
            # Zero means that there is no id.
            self._context = trace.SpanContext(
                parent.trace_id if parent.is_valid else random.getrandbits(128) or 1,
                random.getrandbits(64) or 1,
                is_remote=False,
                trace_state=parent.trace_state,
            )
        return self._context
