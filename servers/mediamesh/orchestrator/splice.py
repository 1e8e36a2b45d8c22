"""Puts flows into the places of nodes of another flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import OPEN_END, SINKS, SOURCES
from mediamesh.orchestrator.condition_source import rewritten
from mediamesh.orchestrator.conditions import Address, joined
from mediamesh.orchestrator.draft import Draft, Place, among, quoted
from mediamesh.orchestrator.references import prefix_references
from mediamesh.orchestrator.wiring import ends, is_constant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mediamesh.api.flow.v1.flow_pb2 import FlowNode

__all__ = ["splice"]

_ID_LENGTH = 64
_MAX_EDGES = 4096


class _Wire(NamedTuple):
    """An edge while flows are put together; ``places`` are those of its ends and of its condition, by their keys."""

    source: Address
    target: Address
    when: str
    line: int
    file: str
    places: Mapping[str, Place]


def splice(outer: Draft, parts: Mapping[str, Draft], *, max_nodes: int) -> Draft:
    """Return a flow with other flows in the places of some of its nodes.

    Args:
        outer: The flow; it is told of what is wrong, and its issues are those of the result.
        parts: The flows, by the node that each stands for.
        max_nodes: Most nodes that the result may have; it is without the flows where it would have more.
    """
    counts = [len(outer.flow.nodes) + sum(len(part.flow.nodes) for part in parts.values())]
    counts.append(len(outer.flow.edges) + sum(len(part.flow.edges) for part in parts.values()))
    for what, count, limit in zip(("nodes", "edges"), counts, (max_nodes, _MAX_EDGES), strict=True):
        if count > limit:
            outer.wrong(
                flow_pb2.FLOW_ISSUE_CODE_SYNTAX,
                f"A flow has at most {limit} {what}, with those of the flows in it; this one has {count}.",
            )
            return outer
    return _Splice(outer, parts).done()


class _Splice:
    def __init__(self, outer: Draft, parts: Mapping[str, Draft]) -> None:
        self._outer = outer
        self._parts = parts
        self._whole = Draft(outer.file)
        self._whole.issues = outer.issues
        flow = self._whole.flow
        flow.id, flow.name, flow.description = outer.flow.id, outer.flow.name, outer.flow.description
        self._inputs = {node_id: _ends_of(part, SOURCES) for node_id, part in parts.items()}
        self._outputs = {node_id: _ends_of(part, SINKS) for node_id, part in parts.items()}

    def done(self) -> Draft:
        outside = [wire for wire in _wires(self._outer, "") if self._meets(wire)]
        inside = [wire for node_id, part in self._parts.items() for wire in _wires(part, f"{node_id}.")]
        joints = self._joints(outside, inside)
        inside_ids = {f"{node_id}.{node.id}" for node_id, part in self._parts.items() for node in part.flow.nodes}
        outside_ids = {node.id for node in self._outer.flow.nodes}
        wires = [*_renamed(outside, outside_ids, joints), *_renamed(inside, inside_ids, joints)]
        gone = set()
        for node_id in self._parts:
            gone |= self._used(node_id, outside)
        for node in self._outer.flow.nodes:
            self._add(node, gone)
        self._write(self._contracted(wires))
        return self._whole

    def _meets(self, wire: _Wire) -> bool:
        """Return whether an outer edge meets ends of the flows where it meets a flow; what is wrong is told."""
        for end, (node_id, pin), interface, side in (
            ("from", wire.source, self._outputs, "output"),
            ("to", wire.target, self._inputs, "input"),
        ):
            if node_id not in self._parts or pin in interface[node_id]:
                continue
            if not self._parts[node_id].issues:
                place = wire.places[end]
                self._whole.wrong_at(
                    flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_PIN,
                    f"{quoted(self._parts[node_id].file)} has no {side} {quoted(pin)}.{among(pin, interface[node_id])}",
                    place.line, place.column, place.file,
                )  # fmt: skip
            return False
        return True

    def _joints(self, outside: Iterable[_Wire], inside: Iterable[_Wire]) -> dict[Address, Address]:
        """Return for each end that vanishes the pin where its value comes from."""
        joints: dict[Address, Address] = {}
        for wire in inside:
            for node_id, outputs in self._outputs.items():
                for pin, inner in outputs.items():
                    if wire.target == (f"{node_id}.{pin}", inner):
                        joints.setdefault((node_id, pin), wire.source)
        for wire in outside:
            node_id, pin = wire.target
            if node_id in self._parts:
                joints.setdefault((f"{node_id}.{pin}", self._inputs[node_id][pin]), wire.source)
        return joints

    def _used(self, node_id: str, outside: Iterable[_Wire]) -> set[str]:
        """Return the ids in the whole of those ends of a flow that outer edges join."""
        pins = {wire.target[1] for wire in outside if wire.target[0] == node_id}
        pins |= {wire.source[1] for wire in outside if wire.source[0] == node_id}
        return {f"{node_id}.{pin}" for pin in pins}

    def _contracted(self, wires: list[_Wire]) -> list[_Wire]:
        """Return the wires with every pair that meets at an end of a flow made one."""
        for node_id in self._parts:
            for pin, inner in self._inputs[node_id].items():
                wires = self._joined(wires, (node_id, pin), (f"{node_id}.{pin}", inner), keep_first=True)
            for pin, inner in self._outputs[node_id].items():
                wires = self._joined(wires, (f"{node_id}.{pin}", inner), (node_id, pin), keep_first=False)
        return wires

    def _joined(self, wires: list[_Wire], into: Address, out: Address, *, keep_first: bool) -> list[_Wire]:
        before = [wire for wire in wires if wire.target == into]
        after = [wire for wire in wires if wire.source == out]
        outer = before if keep_first else after
        if not outer:
            # Nobody outside uses this end: it stays an end of the whole.
            return wires
        if len(wires) + len(before) * len(after) > 2 * _MAX_EDGES:
            self._whole.wrong(flow_pb2.FLOW_ISSUE_CODE_SYNTAX, f"Joined, the flows have more than {_MAX_EDGES} edges.")
            return []
        rest = [wire for wire in wires if wire.target != into and wire.source != out]
        for first in before:
            for second in after:
                kept = first if keep_first else second
                rest.append(
                    kept._replace(source=first.source, target=second.target, when=joined(first.when, second.when))
                )
        return rest

    def _add(self, node: FlowNode, gone: Collection[str]) -> None:
        part = self._parts.get(node.id)
        if part is None:
            self._whole.flow.nodes.add().CopyFrom(node)
            self._whole.take_places(self._outer, node.id, node.id)
            return
        prefix = f"{node.id}."
        first = len(self._whole.flow.nodes)
        for inner in part.flow.nodes:
            if prefix + inner.id in gone:
                continue
            added = self._whole.flow.nodes.add()
            added.CopyFrom(inner)
            added.id, added.file = prefix + inner.id, inner.file or part.file
            prefix_references(added.params, prefix)
            prefix_references(added.outputs, prefix)
            self._whole.take_places(part, inner.id, added.id)
            if len(added.id) > _ID_LENGTH:
                self._outer.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_SYNTAX,
                    f"{quoted(added.id)} has {len(added.id)} characters; the id of a node, with those of the nodes "
                    f"around it, has {_ID_LENGTH} at most.",
                    node.id, "flow",
                )  # fmt: skip
        self._set_constants(node, part, {inner.id: inner for inner in self._whole.flow.nodes[first:]})

    def _set_constants(self, node: FlowNode, part: Draft, nodes: Mapping[str, FlowNode]) -> None:
        """Give the constants of an inner flow the values that the parameters of its node say."""
        known = {f"{inner.id}.{pin}" for inner in part.flow.nodes for pin in inner.outputs.fields}
        for name, value in node.params.fields.items():
            if name not in known:
                self._outer.wrong(
                    flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM,
                    f"{quoted(part.file)} has no constant {quoted(name)}.{among(name, known)}",
                    node.id, "params", name,
                )  # fmt: skip
                continue
            inner_id, _, pin = name.rpartition(".")
            nodes[f"{node.id}.{inner_id}"].outputs.fields[pin].CopyFrom(value)
            place = self._outer.place(node.id, "params", name)
            self._whole.put(place, f"{node.id}.{inner_id}", "outputs", pin)

    def _write(self, wires: Iterable[_Wire]) -> None:
        for index, wire in enumerate(wires):
            edge = self._whole.flow.edges.add(line=wire.line, file=wire.file, when=wire.when)
            for address, (node_id, pin) in zip(ends(edge), (wire.source, wire.target), strict=True):
                address.node_id, address.pin = node_id, pin
            for end, place in wire.places.items():
                self._whole.put(place, index, end)


def _ends_of(part: Draft, types: Collection[str]) -> dict[str, str]:
    """Return the client's ends of a flow by id, each with its pin."""
    return {
        node.id: OPEN_END[node.type]
        for node in part.flow.nodes
        if node.type in types and not is_constant(node) and "." not in node.id
    }


def _wires(draft: Draft, prefix: str) -> list[_Wire]:
    wires = []
    ids = {node.id for node in draft.flow.nodes}
    for index, edge in enumerate(draft.flow.edges):
        source, target = ends(edge)
        wires.append(
            _Wire(
                source=(prefix + source.node_id, source.pin),
                target=(prefix + target.node_id, target.pin),
                when=rewritten(edge.when, ids, lambda pin: (prefix + pin[0], pin[1]))
                if edge.when and prefix
                else edge.when,
                line=edge.line,
                file=edge.file or (draft.file if prefix else ""),
                places={end: draft.place(index, end) for end in ("from", "to", "when")},
            )
        )
    return wires


def _renamed(wires: Iterable[_Wire], ids: Collection[str], joints: Mapping[Address, Address]) -> list[_Wire]:
    """Return the wires with conditions that refer to what is there in the whole."""

    def followed(address: Address) -> Address:
        while address in joints:
            address = joints[address]
        return address

    return [wire._replace(when=rewritten(wire.when, ids, followed) if wire.when else "") for wire in wires]
