"""Checks a flow against the agents that there are; everything that is wrong is found at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import manifest_pb2, pin_pb2
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import AUDIO_RECORDER, OPEN_PINS
from mediamesh.orchestrator.condition_check import check_conditions, may_be_withheld
from mediamesh.orchestrator.conversions import Conversions, conversions_between, offer
from mediamesh.orchestrator.draft import Draft, among, quoted
from mediamesh.orchestrator.list_nodes import list_pins
from mediamesh.orchestrator.pins import clash, misfit
from mediamesh.orchestrator.references import resolve_references
from mediamesh.orchestrator.wiring import conditional_edges, ends, find_cycles, is_constant
from mediamesh.wire.modalities import refusal
from mediamesh.wire.pins import MEDIA_TYPES, plain_value
from mediamesh.wire.responses import may_stream

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import FlowEdge, FlowNode
    from mediamesh.wire.errors import MultimodalNotSupported

__all__ = ["check_flow"]


def check_flow(draft: Draft, agents: Mapping[str, manifest_pb2.Manifest], unreachable: Sequence[str] = ()) -> None:
    """Add to the draft what is wrong, and to its nodes the pins of their agents.

    Args:
        draft: A flow that was read.
        agents: Every agent that is known, by id.
        unreachable: A sentence for each agent server that cannot be asked, which explains agents that are missing.
    """
    _Check(draft, agents, unreachable).run()


class _Check:
    def __init__(self, draft: Draft, agents: Mapping[str, manifest_pb2.Manifest], unreachable: Sequence[str]) -> None:
        self._draft = draft
        self._agents = agents
        self._unreachable = unreachable
        self._nodes = {node.id: node for node in draft.flow.nodes}
        self._edges = list(draft.flow.edges)
        self._conversions = Conversions(draft.flow)
        self._broken: set[tuple[str, str, str]] = set()

    def run(self) -> None:
        self._broken = resolve_references(self._draft)
        for node in self._nodes.values():
            self._agent(node)
        self._open_pins()
        for index, edge in enumerate(self._edges):
            self._edge(index, edge)
        self._doubled()
        for node in self._nodes.values():
            self._connected(node)
        check_conditions(self._draft, self._edges)
        implied = list(conditional_edges(self._edges, self._nodes))
        indices = [*range(len(self._edges)), *(index for index, _ in implied)]
        for path, found in find_cycles([*self._edges, *(edge for _, edge in implied)]):
            index = indices[found]
            shown = " → ".join(map(quoted, path if len(path) <= 16 else [*path[:15], "…", path[-1]]))
            self._draft.wrong(flow_pb2.FLOW_ISSUE_CODE_CYCLE, f"These nodes wait for each other: {shown}.", index, "to")
        self._conversions.insert()

    def _agent(self, node: FlowNode) -> None:
        if not node.type:
            return
        manifest = self._agents.get(node.type)
        if manifest is None:
            why = "".join(f" {sentence}" for sentence in self._unreachable[:4])
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_AGENT,
                f"No agent {quoted(node.type)} is known.{why or among(node.type, self._agents)}",
                node.id, "type",
            )  # fmt: skip
            return
        node.input_pins.extend([] if is_constant(node) else manifest.inputs)
        node.output_pins.extend(manifest.outputs)
        if node.HasField("for_each"):
            list_pins(self._draft, node)
        self._params(node, manifest)
        self._constants(node)
        if node.response_mode == manifest_pb2.RESPONSE_MODE_STREAMING and not may_stream(manifest):
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_STREAMING_NOT_SUPPORTED,
                f"{quoted(node.type)} answers at once (response.mode is sync); it cannot be asked for a stream.",
                node.id, "response",
            )  # fmt: skip
        if node.cache and not manifest.cache.enabled:
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM,
                f"{quoted(node.type)} does not say that its results depend on its inputs alone (`cache` in its "
                "manifest), so that they cannot be cached.",
                node.id, "cache",
            )  # fmt: skip

    def _params(self, node: FlowNode, manifest: manifest_pb2.Manifest) -> None:
        params = {param.name: param for param in manifest.params}
        for name, param in params.items():
            required = not param.optional and not param.HasField("default_value") and not is_constant(node)
            if required and name not in node.params.fields:
                text = f"{quoted(manifest.id)} needs the parameter {quoted(name)}."
                self._draft.wrong(flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM, text, node.id, "params")
        for name, value in node.params.fields.items():
            if (node.id, "params", name) in self._broken:
                continue
            if name in params:
                problem = misfit(plain_value(params[name], value), params[name])
                said = f"The parameter {quoted(name)} is wrong: it {problem}." if problem else ""
            elif any(pin.name == name for pin in manifest.inputs):
                said = f"{quoted(name)} is an input pin of {quoted(manifest.id)}, not a parameter: feed it by an edge."
            else:
                said = f"{quoted(manifest.id)} has no parameter {quoted(name)}.{among(name, params)}"
            if said:
                self._draft.wrong(flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM, said, node.id, "params", name)

    def _constants(self, node: FlowNode) -> None:
        pins = {pin.name: pin for pin in node.output_pins}
        for name, value in node.outputs.fields.items():
            if name not in pins:
                self._draft.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_PIN,
                    f"{quoted(node.type)} has no output pin {quoted(name)}.{among(name, pins)}",
                    node.id, "outputs", name,
                )  # fmt: skip
            elif (node.id, "outputs", name) in self._broken:
                continue
            elif problem := misfit(plain_value(pins[name], value), pins[name]):
                self._draft.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_INCOMPATIBLE_PINS,
                    f"The constant for {quoted(name)} does not fit: it {problem}.",
                    node.id, "outputs", name,
                )  # fmt: skip

    def _open_pins(self) -> None:
        """Give pins that take any type the one at the other end of their first edge."""
        for end in ("to", "from"):
            settled: set[tuple[str, str]] = set()
            for edge in self._edges:
                source, target = self._pin(edge, "from"), self._pin(edge, "to")
                mine, other = (target, source) if end == "to" else (source, target)
                address = getattr(edge, end)
                node = self._nodes.get(address.node_id)
                if mine is None or other is None or node is None or (node.id, mine.name) in settled:
                    continue
                if (node.type, mine.name) in OPEN_PINS:
                    settled.add((node.id, mine.name))
                    mine.type = other.type
                    if end == "from":
                        mine.constraints.CopyFrom(other.constraints)

    def _edge(self, index: int, edge: FlowEdge) -> None:
        for end in ("from", "to"):
            self._end(index, edge, end)
        source, target = self._pin(edge, "from"), self._pin(edge, "to")
        if source is None or target is None:
            return
        problem = clash(source, target)
        if problem is None and not self._is_of_unknown_form(edge, target):
            return
        found = conversions_between(source, target, self._agents)
        if len(found) == 1 and self._conversions.plan(edge, found[0]):
            return
        if problem is not None:
            self._clash(index, edge, source, target, problem + (offer(found, edge) if found else ""))

    def _is_of_unknown_form(self, edge: FlowEdge, target: pin_pb2.Pin) -> bool:
        """Return whether an edge comes from a recorder, whose microphone has the rate and format that it has."""
        node = self._nodes[ends(edge)[0].node_id]
        return node.type == AUDIO_RECORDER and not is_constant(node) and target.type == pin_pb2.PIN_TYPE_AUDIO

    def _clash(self, index: int, edge: FlowEdge, source: pin_pb2.Pin, target: pin_pb2.Pin, problem: str) -> None:
        a, b = ends(edge)
        code = flow_pb2.FLOW_ISSUE_CODE_INCOMPATIBLE_PINS
        if refused := self._refusal(source, edge.to.node_id, target):
            code, problem = flow_pb2.FLOW_ISSUE_CODE_MULTIMODAL_NOT_SUPPORTED, refused.text.rstrip(".")
        self._draft.wrong(
            code,
            f"{quoted(f'{a.node_id}.{a.pin}')} cannot feed {quoted(f'{b.node_id}.{b.pin}')}: {problem}.",
            index, "to",
        )  # fmt: skip

    def _refusal(self, source: pin_pb2.Pin, node_id: str, target: pin_pb2.Pin) -> MultimodalNotSupported | None:
        manifest = self._agents.get(self._nodes[node_id].type)
        if manifest is None or source.type not in MEDIA_TYPES:
            return None
        return refusal(manifest, target, MEDIA_TYPES[source.type])

    def _end(self, index: int, edge: FlowEdge, end: str) -> None:
        address = getattr(edge, end)
        node = self._nodes.get(address.node_id)
        if node is None:
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_NODE,
                f"There is no node {quoted(address.node_id)}.{among(address.node_id, self._nodes)}",
                index, end,
            )  # fmt: skip
            return
        if node.type not in self._agents:
            return
        pins = node.output_pins if end == "from" else node.input_pins
        names = {pin.name for pin in pins}
        if end == "from" and is_constant(node) and address.pin in names and address.pin not in node.outputs.fields:
            said = f"{quoted(node.id)} has constant outputs, and {quoted(address.pin)} is not among them."
        elif end == "to" and is_constant(node):
            said = f"{quoted(node.id)} has constant outputs and takes no inputs."
        elif address.pin not in names:
            side = "output" if end == "from" else "input"
            said = f"{quoted(node.type)} has no {side} pin {quoted(address.pin)}.{among(address.pin, names)}"
        else:
            return
        self._draft.wrong(flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_PIN, said, index, end)

    def _doubled(self) -> None:
        first: dict[tuple[str, str], int] = {}
        withheld = may_be_withheld(self._draft.flow, self._edges)
        for index, edge in enumerate(self._edges):
            pin = self._pin(edge, "to")
            key = (edge.to.node_id, edge.to.pin)
            # Edges of which each may carry nothing are alternatives.
            alternative = index in withheld and first.get(key, index) in withheld
            if key in first and pin is not None and pin.type != pin_pb2.PIN_TYPE_STREAM and not alternative:
                self._draft.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_MULTIPLE_EDGES,
                    f"{quoted('.'.join(key))} takes one value, and the edge in line "
                    f"{self._edges[first[key]].line} feeds it already.",
                    index, "to",
                )  # fmt: skip
            first.setdefault(key, index)

    def _connected(self, node: FlowNode) -> None:
        fed = {edge.to.pin for edge in self._edges if edge.to.node_id == node.id}
        for pin in node.input_pins:
            if not pin.optional and pin.name not in fed:
                self._draft.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_UNCONNECTED_PIN,
                    f"The input pin {quoted(f'{node.id}.{pin.name}')} ({node.type}) needs an edge.",
                    node.id,
                )

    def _pin(self, edge: FlowEdge, end: str) -> pin_pb2.Pin | None:
        address = getattr(edge, end)
        node = self._nodes.get(address.node_id)
        if node is None:
            return None
        pins = node.output_pins if end == "from" else node.input_pins
        return next((pin for pin in pins if pin.name == address.pin), None)
