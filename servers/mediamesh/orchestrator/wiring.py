"""How the nodes of a flow hang together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.flow.v1.flow_pb2 import FlowEdge
from mediamesh.orchestrator.condition_source import parse
from mediamesh.orchestrator.conditions import BadCondition, references

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowNode, PinAddress

__all__ = ["Ancestors", "conditional_edges", "ends", "find_cycles", "hazards", "is_constant", "stream_edges"]


def ends(edge: FlowEdge) -> tuple[PinAddress, PinAddress]:
    """Return where an edge comes from and where it goes; ``from`` is a keyword of Python."""
    return getattr(edge, "from"), edge.to


def is_constant(node: FlowNode) -> bool:
    """Return whether the file gives the node's outputs, so that it runs no agent."""
    return node.HasField("outputs")


def stream_edges(flow: Flow) -> list[FlowEdge]:
    """Return the edges that carry chunks."""
    streams = {
        (node.id, pin.name) for node in flow.nodes for pin in node.input_pins if pin.type == pin_pb2.PIN_TYPE_STREAM
    }
    return [edge for edge in flow.edges if (edge.to.node_id, edge.to.pin) in streams]


def hazards(flow: Flow) -> set[tuple[str, str]]:
    """Return the stream input pins, as node and pin, whose backpressure could stop a value their own node waits for.

    That is so where the value comes, at some distance, from a node that the stream comes from: the node cannot start
    before the value is there, the stream is not read before the node starts, and a producer that may not stream on
    never gives the value.
    """
    streams = stream_edges(flow)
    stream_pins = {(edge.to.node_id, edge.to.pin) for edge in streams}
    conditions = [edge for _, edge in conditional_edges(flow.edges, {node.id for node in flow.nodes})]
    before, before_by_stream = Ancestors([*flow.edges, *conditions]), Ancestors(streams)
    needed_by: dict[str, set[str]] = defaultdict(set)
    for edge in flow.edges:
        source, target = ends(edge)
        if (target.node_id, target.pin) not in stream_pins:
            needed_by[target.node_id] |= before.of(source.node_id)
    for edge in conditions:
        needed_by[edge.to.node_id] |= before.of(ends(edge)[0].node_id)
    return {
        (edge.to.node_id, edge.to.pin)
        for edge in streams
        if before_by_stream.of(ends(edge)[0].node_id) & needed_by[edge.to.node_id]
    }


class Ancestors:
    """For a node, itself and all that it needs.

    Args:
        edges: What counts; to look at a node in a condition is to need it.
    """

    def __init__(self, edges: Iterable[FlowEdge]) -> None:
        self._feeds: dict[str, set[str]] = defaultdict(set)
        self._known: dict[str, set[str]] = {}
        for edge in edges:
            source, target = ends(edge)
            self._feeds[target.node_id].add(source.node_id)

    def of(self, node_id: str) -> set[str]:
        """Return them by id."""
        if node_id not in self._known:
            found, waiting = {node_id}, [node_id]
            while waiting:
                new = self._feeds[waiting.pop()] - found
                found |= new
                waiting.extend(new)
            self._known[node_id] = found
        return self._known[node_id]


def conditional_edges(edges: Iterable[FlowEdge], nodes: Collection[str]) -> Iterator[tuple[int, FlowEdge]]:
    """Yield for each pin that a condition looks at the index of its edge, and an edge from the pin to the same end.

    The node there waits for what is looked at as it waits for what comes along edges.
    """
    for index, edge in enumerate(edges):
        try:
            looked_at = list(references(parse(edge.when, nodes))) if edge.when else []
        except BadCondition:
            continue
        for found in looked_at:
            if found.address is not None:
                implied = FlowEdge(to=edge.to)
                ends(implied)[0].node_id, ends(implied)[0].pin = found.address
                yield index, implied


def find_cycles(edges: Sequence[FlowEdge]) -> Iterator[tuple[list[str], int]]:
    """Yield the nodes of each cycle that a walk over the edges meets, first and last the same, and its closing edge."""
    out: Mapping[str, list[tuple[str, int]]] = defaultdict(list)
    for index, edge in enumerate(edges):
        source, target = ends(edge)
        out[source.node_id].append((target.node_id, index))
    done: set[str] = set()
    for root in list(out):
        if root in done:
            continue
        path, branches = [root], [iter(out[root])]
        on_path = {root}
        while path:
            step = next(branches[-1], None)
            if step is None:
                on_path.discard(path[-1])
                done.add(path.pop())
                branches.pop()
            elif step[0] in on_path:
                yield [*path[path.index(step[0]) :], step[0]], step[1]
            elif step[0] not in done:
                path.append(step[0])
                on_path.add(step[0])
                branches.append(iter(out.get(step[0], [])))
