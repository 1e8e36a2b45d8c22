"""Checks the conditions of edges: what they look at is there, can be looked at, and comes before what they decide."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.condition_source import parse
from mediamesh.orchestrator.conditions import (
    Address,
    BadCondition,
    Compare,
    Expression,
    Literal,
    Reference,
    parts_of,
    references,
)
from mediamesh.orchestrator.draft import among, quoted
from mediamesh.orchestrator.wiring import Ancestors, ends, is_constant, stream_edges
from mediamesh.wire.pins import type_name

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.flow.v1.flow_pb2 import FlowEdge, FlowNode
    from mediamesh.orchestrator.draft import Draft

__all__ = ["check_conditions", "may_be_withheld"]

_INVALID = flow_pb2.FLOW_ISSUE_CODE_INVALID_CONDITION
_UNSEEN = {pin_pb2.PIN_TYPE_STREAM, pin_pb2.PIN_TYPE_BINARY}
_LITERALS: Mapping[pin_pb2.PinType.ValueType, type | tuple[type, ...]] = {
    pin_pb2.PIN_TYPE_STRING: str,
    pin_pb2.PIN_TYPE_NUMBER: (int, float),
    pin_pb2.PIN_TYPE_BOOLEAN: bool,
}


def check_conditions(draft: Draft, edges: Sequence[FlowEdge]) -> None:
    """Tell what is wrong with the conditions of a flow whose nodes have their pins."""
    check = _Check(draft, edges)
    for index, edge in enumerate(edges):
        if edge.when:
            check.edge(index, edge)


def may_be_withheld(flow: flow_pb2.Flow, edges: Iterable[FlowEdge]) -> set[int]:
    """Return the indices of the edges that may carry nothing: they have conditions, or come from behind such ones."""
    listed = list(edges)
    into: dict[tuple[str, str], list[int]] = {}
    for index, edge in enumerate(listed):
        into.setdefault((edge.to.node_id, edge.to.pin), []).append(index)
    found = {index for index, edge in enumerate(listed) if edge.when}
    while True:
        nodes = {node.id for node in flow.nodes if _may_be_skipped(node, into, found)}
        more = {index for index, edge in enumerate(listed) if ends(edge)[0].node_id in nodes} - found
        if not more:
            return found
        found |= more


def _may_be_skipped(node: FlowNode, into: Mapping[tuple[str, str], list[int]], withheld: Collection[int]) -> bool:
    for pin in node.input_pins:
        feeding = into.get((node.id, pin.name))
        if feeding and not pin.optional and all(index in withheld for index in feeding):
            return True
    return False


class _Check:
    def __init__(self, draft: Draft, edges: Sequence[FlowEdge]) -> None:
        self._draft = draft
        self._nodes = {node.id: node for node in draft.flow.nodes}
        self._stream_pins = {(edge.to.node_id, edge.to.pin) for edge in stream_edges(draft.flow)}
        self._before = Ancestors(edges)
        self._before_by_stream = Ancestors(stream_edges(draft.flow))

    def edge(self, index: int, edge: FlowEdge) -> None:
        try:
            expression = parse(edge.when, self._nodes)
        except BadCondition as error:
            self._draft.wrong(_INVALID, f"The condition {error}.", index, "when")
            return
        source = ends(edge)[0].node_id, ends(edge)[0].pin
        problems = [
            problem
            for address in dict.fromkeys(found.address or source for found in references(expression))
            if (problem := self._problem(address, edge))
        ]
        problems = problems or [(_INVALID, text) for text in self._mismatches(expression, source)]
        for code, text in problems:
            self._draft.wrong(code, text, index, "when")

    def _problem(self, address: Address, edge: FlowEdge) -> tuple[flow_pb2.FlowIssueCode.ValueType, str] | None:
        node_id, name = address
        node = self._nodes.get(node_id)
        if node is None:
            return (
                flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_NODE,
                f"There is no node {quoted(node_id)}.{among(node_id, self._nodes)}",
            )
        pins = {pin.name: pin for pin in node.output_pins if not is_constant(node) or pin.name in node.outputs.fields}
        if name not in pins:
            if not node.output_pins and not node.input_pins:
                return None  # its agent is unknown, which is told
            text = f"{quoted(node_id)} has no output pin {quoted(name)}.{among(name, pins)}"
            return flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_PIN, text
        if pins[name].type in _UNSEEN:
            shown = quoted(".".join(address))
            return _INVALID, f"A condition cannot look at {shown}, which is {type_name(pins[name].type)}."
        if self._waits_for_itself(node_id, edge):
            shown = quoted(".".join(address))
            return _INVALID, (
                f"{shown} comes from what waits until this stream is read: let the condition look at something else."
            )
        return None

    def _waits_for_itself(self, node_id: str, edge: FlowEdge) -> bool:
        """Return whether a stream waits for a condition that waits, at some distance, for who produces the stream."""
        if (edge.to.node_id, edge.to.pin) not in self._stream_pins:
            return False
        return bool(self._before.of(node_id) & self._before_by_stream.of(ends(edge)[0].node_id))

    def _mismatches(self, expression: Expression, source: Address) -> Iterator[str]:
        """Yield comparisons that can never be so, and conditions that are never true or false, by the types of pins."""
        if isinstance(expression, Reference) and not expression.path:
            pin = self._pin(expression.address or source)
            if pin is not None and pin.type not in {pin_pb2.PIN_TYPE_BOOLEAN, pin_pb2.PIN_TYPE_JSON}:
                yield f"The condition is {type_name(pin.type)}, neither true nor false: compare it with something."
        for compared in _comparisons(expression):
            for one, other in ((compared.left, compared.right), (compared.right, compared.left)):
                if not isinstance(one, Reference) or one.path or not isinstance(other, Literal) or other.value is None:
                    continue
                pin = self._pin(one.address or source)
                wanted = _LITERALS.get(pin.type) if pin is not None else None
                if pin is not None and wanted and not _is_of(other.value, wanted) and compared.sign != "in":
                    shown = quoted(".".join(one.address or source))
                    yield f"{shown} is {type_name(pin.type)}, and can never be compared with {other.value!r}."

    def _pin(self, address: Address) -> Pin | None:
        node = self._nodes.get(address[0])
        pins = node.output_pins if node is not None else ()
        return next((pin for pin in pins if pin.name == address[1]), None)


def _comparisons(expression: Expression) -> Iterator[Compare]:
    if isinstance(expression, Compare):
        yield expression
    for part in parts_of(expression):
        yield from _comparisons(part)


def _is_of(value: object, wanted: type | tuple[type, ...]) -> bool:
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
