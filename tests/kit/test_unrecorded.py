"""Spans that nobody collects still tie log lines and calls together."""

from __future__ import annotations

from opentelemetry import trace

from mediamesh.kit.unrecorded import UnrecordedTraces


def test_a_span_has_ids_of_its_own_that_do_not_change() -> None:
    tracer = UnrecordedTraces().get_tracer("test")
    one, two = tracer.start_span("one"), tracer.start_span("two")
    assert one.get_span_context().is_valid
    assert one.get_span_context() == one.get_span_context()
    assert one.get_span_context().trace_id != two.get_span_context().trace_id
    assert not one.is_recording()


def test_a_span_within_another_shares_its_trace() -> None:
    tracer = UnrecordedTraces().get_tracer("test")
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        assert trace.get_current_span() is inner
    assert inner.get_span_context().trace_id == outer.get_span_context().trace_id
    assert inner.get_span_context().span_id != outer.get_span_context().span_id


def test_a_caller_s_trace_goes_on() -> None:
    parent = trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    own = UnrecordedTraces().get_tracer("test").start_span("call", context).get_span_context()
    assert (own.trace_id, own.is_remote, own.trace_flags.sampled) == (0xA, False, False)
