"""What stands between two pins whose media differ only in form: converters, found by what their manifests say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import struct_pb2

from mediamesh.orchestrator.draft import quoted
from mediamesh.orchestrator.pins import clash, misfit
from mediamesh.orchestrator.wiring import ends
from mediamesh.wire.pins import MEDIA_TYPES, plain_value

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin, PinConstraints
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowEdge, FlowNode

__all__ = ["Conversion", "Conversions", "conversions_between", "offer"]

# The parameter of a converter that sets a fact; what is not here cannot be converted.
_PARAMS = {"sample_rate_hz": "rate", "channels": "channels", "width": "width", "height": "height"}
_FIXED = (*_PARAMS, "encoding", "fps")
_MAX_NODES = 1024  # the contract's, for a flow
_ID_LENGTH = 56


class Conversion(NamedTuple):
    """A converter and how it is to be set.

    Attributes:
        manifest: The agent.
        params: Its parameters by name.
    """

    manifest: Manifest
    params: Mapping[str, Any]

    def shown(self, edge: FlowEdge) -> str:
        """Return what to write into a flow, in the place of an edge."""
        source, target = ends(edge)
        node_id = f"{target.node_id}-{target.pin}"[:_ID_LENGTH]
        params = ", ".join(f"{name}: {value}" for name, value in self.params.items())
        return (
            f"`- {{id: {node_id}, type: {self.manifest.id}, params: {{{params}}}}}` among the nodes, and the edges "
            f"`- {{from: {source.node_id}.{source.pin}, to: {node_id}.{self.manifest.inputs[0].name}}}` and "
            f"`- {{from: {node_id}.{self.manifest.outputs[0].name}, to: {target.node_id}.{target.pin}}}`"
        )


def conversions_between(source: Pin, target: Pin, agents: Mapping[str, Manifest]) -> list[Conversion]:
    """Return every way to make what leaves one pin fit the other; none where no converter can."""
    if source.type != target.type or source.type not in MEDIA_TYPES:
        return []
    return [
        conversion
        for manifest in agents.values()
        if manifest.converter and _one_medium(manifest, source)
        for conversion in _settings(manifest, source.constraints, target.constraints)
    ]


def _one_medium(manifest: Manifest, source: Pin) -> bool:
    """Return whether an agent takes what leaves a pin, and gives the same kind of medium and nothing else."""
    return (
        len(manifest.inputs) == 1
        and len(manifest.outputs) == 1
        and manifest.inputs[0].type == manifest.outputs[0].type == source.type
        and clash(source, manifest.inputs[0]) is None
    )


def _settings(manifest: Manifest, given: PinConstraints, wanted: PinConstraints) -> Iterator[Conversion]:
    """Yield how a converter can be set; several where several formats would do."""
    params: dict[str, Any] = {}
    for fact in _FIXED:
        value = getattr(wanted, fact)
        if not value:
            continue
        if fact in _PARAMS:
            params[_PARAMS[fact]] = value
        elif getattr(given, fact) not in {0, "", value}:
            return
    formats = _formats(given, wanted)
    for media_type in formats or [""]:
        settings = {**params, **({"format": media_type} if media_type else {})}
        if settings and _takes(manifest, settings):
            yield Conversion(manifest, settings)


def _formats(given: PinConstraints, wanted: PinConstraints) -> list[str]:
    """Return the media types of which one is to be chosen; none where the source's own may do."""
    exact = [media_type for media_type in wanted.mime_types if "*" not in media_type]
    if len(wanted.mime_types) == 1 or (given.mime_types and not set(given.mime_types) & set(exact)):
        return exact
    return []


def _takes(manifest: Manifest, settings: Mapping[str, Any]) -> bool:
    params = {param.name: param for param in manifest.params}
    return all(
        name in params and misfit(plain_value(params[name], _json(value)), params[name]) is None
        for name, value in settings.items()
    )


def _json(value: str | float) -> struct_pb2.Value:
    return struct_pb2.Value(string_value=value) if isinstance(value, str) else struct_pb2.Value(number_value=value)


class Conversions:
    """Converters to be put into a flow once all of it is checked.

    Args:
        flow: The flow.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._planned: list[tuple[FlowEdge, Conversion]] = []

    def plan(self, edge: FlowEdge, conversion: Conversion) -> bool:
        """Take note that an edge needs a converter; return whether there is room for one."""
        fits = len(self._flow.nodes) + len(self._planned) < _MAX_NODES
        if fits:
            self._planned.append((edge, conversion))
        return fits

    def insert(self) -> None:
        """Put the converters in: one for all edges that leave the same pin for the same form."""
        made: dict[tuple[object, ...], FlowNode] = {}
        for edge, conversion in self._planned:
            source = ends(edge)[0]
            key = (source.node_id, source.pin, edge.when, conversion.manifest.id, tuple(conversion.params.items()))
            if key not in made:
                made[key] = self._node(edge, conversion)
                fed = self._flow.edges.add(line=edge.line, file=edge.file, when=edge.when)
                ends(fed)[0].CopyFrom(source)
                fed.to.node_id, fed.to.pin = made[key].id, conversion.manifest.inputs[0].name
            source.node_id, source.pin = made[key].id, conversion.manifest.outputs[0].name
            edge.when = ""

    def _node(self, edge: FlowEdge, conversion: Conversion) -> FlowNode:
        ids = {node.id for node in self._flow.nodes}
        first = node_id = f"{edge.to.node_id}-{edge.to.pin}"[:_ID_LENGTH]
        number = 1
        while node_id in ids:
            number += 1
            node_id = f"{first}-{number}"
        node = self._flow.nodes.add(
            id=node_id, type=conversion.manifest.id, line=edge.line, file=edge.file, generated=True
        )
        node.params.update(dict(conversion.params))
        node.input_pins.extend(conversion.manifest.inputs)
        node.output_pins.extend(conversion.manifest.outputs)
        return node


def offer(conversions: list[Conversion], edge: FlowEdge) -> str:
    """Return the end of a sentence that offers conversions of which none is the only one."""
    others = dict.fromkeys(quoted(conversion.manifest.id) for conversion in conversions)
    choice = f" (there are {', '.join(others)})" if len(others) > 1 else ""
    return f", such as by {conversions[0].shown(edge)}{choice}"
