from __future__ import annotations

import asyncio

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mediamesh.cli.demo import mesh_up
from mediamesh.client import Mesh

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]


SERVICES = {"envoy", "orchestrator", "agents", "inference", "media"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP collector that keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []

    async def Export(self, request, context):
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for resource in request.resource_spans:
            (service,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def runs(self) -> set[bytes]:
        return {span.trace_id for _, span in self.spans if span.name.endswith("FlowService/RunFlow")}

    def is_whole(self, trace_id: bytes) -> bool:
        return {service for service, span in self.spans if span.trace_id == trace_id} >= SERVICES

    def orphans(self, trace_id: bytes) -> list[tuple[str, str]]:
        """Return spans of a trace whose parents nobody told of."""
        spans = [(service, span) for service, span in self.spans if span.trace_id == trace_id]
        ids = {span.span_id for _, span in spans}
        return [
            (service, span.name) for service, span in spans if span.parent_span_id and span.parent_span_id not in ids
        ]


async def test_one_trace_goes_from_the_door_to_the_model(tmp_path, classify, cat) -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = f"http://127.0.0.1:{port}"
    up = mesh_up(tmp_path, MEDIAMESH_OTLP_ENDPOINT=endpoint, MEDIAMESH_LOG_FORMAT="json", MEDIAMESH_UP_MODELS="[]")
    mesh = await asyncio.to_thread(up.__enter__)
    try:
        async with Mesh(mesh.door) as door:
            events = [event async for event in door.flows.run(classify, cat, timeout=60)]
            assert not events[-1].execution_finished.HasField("error")
        async with asyncio.timeout(30):  # exporters send every few seconds
            while not any(map(collector.is_whole, collector.runs())):  # noqa: ASYNC110 - other processes tell
                await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(up.__exit__, None, None, None)
    await server.stop(1)
    (run,) = collector.runs()
    assert collector.is_whole(run)
    assert collector.orphans(run) == []
    logged = (tmp_path / "logs" / "orchestrator.log").read_text()
    assert '"trace_id"' in logged
