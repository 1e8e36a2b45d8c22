"""What a flow asks for, against what this mesh and the agents of the flow may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.manifest_pb2 import RESPONSE_MODE_STREAMING
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.wiring import ends, stream_edges
from mediamesh.wire.errors import InvalidFlow, MeshError, MultimodalNotSupported, StreamingNotSupported
from mediamesh.wire.modalities import check_limits, refusal
from mediamesh.wire.pins import MEDIA_TYPES

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowIssue
    from mediamesh.kit.settings import FeatureSettings

__all__ = ["check_features", "failure_of", "media_problems"]

_UNSUPPORTED: Mapping[flow_pb2.FlowIssueCode.ValueType, type[MeshError]] = {
    flow_pb2.FLOW_ISSUE_CODE_STREAMING_NOT_SUPPORTED: StreamingNotSupported,
    flow_pb2.FLOW_ISSUE_CODE_MULTIMODAL_NOT_SUPPORTED: MultimodalNotSupported,
}


def failure_of(issues: Sequence[FlowIssue]) -> MeshError:
    """Return the error for a flow with mistakes: E4010 or E4011 where that is all, else one violation for each."""
    places = [(f"{issue.file}:{issue.line}:{issue.column}", issue.message) for issue in issues]
    kinds = {_UNSUPPORTED.get(issue.code) for issue in issues}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        return InvalidFlow.of_fields(places)
    return kind("; ".join(f"{place}: {text}" for place, text in places))


def check_features(flow: Flow, given: Mapping[str, Value], settings: FeatureSettings) -> None:
    """Refuse a run that needs what is switched off here.

    Raises:
        MultimodalNotSupported: media goes along an edge, or is given, and ENABLE_MULTIMODAL is off.
        StreamingNotSupported: chunks go along an edge, or a node is to stream, and ENABLE_STREAMING is off.
    """
    kinds = {(node.id, pin.name): pin.type for node in flow.nodes for pin in node.output_pins}
    carried = {kinds.get((source.node_id, source.pin)) for source, _ in map(ends, flow.edges)}
    has_media = bool(carried & MEDIA_TYPES.keys()) or any(value.HasField("media") for value in given.values())
    if has_media and not settings.enable_multimodal:
        raise MultimodalNotSupported(f"The flow {flow.id} carries media, which is off here (ENABLE_MULTIMODAL).")
    streams = bool(stream_edges(flow)) or any(node.response_mode == RESPONSE_MODE_STREAMING for node in flow.nodes)
    if streams and not settings.enable_streaming:
        raise StreamingNotSupported(f"The flow {flow.id} streams, which is off here (ENABLE_STREAMING).")


def media_problems(
    flow: Flow, agents: Mapping[str, Manifest], source: tuple[str, str], value: Value
) -> Iterator[MeshError]:
    """Yield why modules do not take media that leaves an output pin: not at all (E4011), or not this much (E1011).

    Args:
        flow: The flow.
        agents: Every agent that is known, by id.
        source: Node and pin that the media leaves.
        value: The media; of any other value nothing is yielded.
    """
    if not value.HasField("media"):
        return
    for manifest, pin in _fed(flow, agents, source):
        if refused := refusal(manifest, pin, value.media.type):
            yield refused
        for violation in check_limits(manifest, value.media):
            yield violation.kind(violation.text)


def _fed(flow: Flow, agents: Mapping[str, Manifest], source: tuple[str, str]) -> Iterator[tuple[Manifest, Pin]]:
    nodes = {node.id: node for node in flow.nodes}
    for start, target in map(ends, flow.edges):
        node = nodes[target.node_id]
        if (start.node_id, start.pin) == source and node.type in agents:
            yield from ((agents[node.type], pin) for pin in node.input_pins if pin.name == target.pin)
