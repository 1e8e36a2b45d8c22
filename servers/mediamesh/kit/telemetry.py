"""Traces and metrics of a process, on the OpenTelemetry SDK.

Metrics are offered to Prometheus on ``/metrics`` of the server's metrics port. Every call has a trace, so that log
lines carry its id; spans are recorded only where an OTLP endpoint is set to send them to.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler, SamplingResult
from prometheus_client import start_http_server

from mediamesh.kit.unrecorded import UnrecordedTraces

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from mediamesh.kit.settings import CommonSettings

__all__ = ["AdjustableSampler", "telemetry"]


class AdjustableSampler(Sampler):
    """Records a share of the traces that begin here, which may change while the process runs.

    Args:
        ratio: The share, from 0 to 1.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    @property
    def ratio(self) -> float:
        """The share, from 0 to 1."""
        return self._ratio

    @ratio.setter
    def ratio(self, ratio: float) -> None:
        self._ratio = ratio
        self._sampler = ParentBasedTraceIdRatio(ratio)

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Decide by the parent, or by the id of a new trace."""
        return self._sampler.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """Name what decides."""
        return f"Adjustable{{{self._ratio}}}"


@contextmanager
def telemetry(service: str, settings: CommonSettings, *, host: str, metrics_port: int | None) -> Generator[None]:
    """Set up traces and metrics for the whole process; use once."""
    with ExitStack() as stack:
        resource = Resource.create({SERVICE_NAME: service})
        readers: list[MetricReader] = []
        if metrics_port is not None:
            readers.append(PrometheusMetricReader())
            page, thread = start_http_server(metrics_port, addr=host)
            stack.callback(thread.join)
            stack.callback(page.server_close)
            stack.callback(page.shutdown)
        if settings.otlp_endpoint:
            spans, points = _otlp(settings.otlp_endpoint)
            tracers = TracerProvider(resource=resource, sampler=AdjustableSampler(settings.trace_ratio))
            stack.callback(tracers.shutdown)
            trace.set_tracer_provider(tracers)
            tracers.add_span_processor(BatchSpanProcessor(spans))
            readers.append(PeriodicExportingMetricReader(points))
        else:
            trace.set_tracer_provider(UnrecordedTraces())
        if readers:  # what nobody reads is not counted: it would cost every call as much as a span
            meters = MeterProvider(resource=resource, metric_readers=readers)
            stack.callback(meters.shutdown)
            metrics.set_meter_provider(meters)
        yield


def _otlp(endpoint: str) -> tuple[SpanExporter, MetricExporter]:
    # Only here: importing them takes every server a tenth of a second.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    insecure = endpoint.startswith("http://")
    return OTLPSpanExporter(endpoint, insecure=insecure), OTLPMetricExporter(endpoint, insecure=insecure)
