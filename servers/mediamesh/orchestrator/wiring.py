"""How the nodes of a flow hang together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import pin_pb2

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowEdge, FlowNode, PinAddress

__all__ = ["ends", "find_cycles", "hazards", "is_constant", "stream_edges"]


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
    before, before_by_stream = _Ancestors(flow.edges), _Ancestors(streams)
    needed_by: dict[str, set[str]] = defaultdict(set)
    for edge in flow.edges:
        source, target = ends(edge)
        if (target.node_id, target.pin) not in stream_pins:
            needed_by[target.node_id] |= before.of(source.node_id)
    return {
        (edge.to.node_id, edge.to.pin)
        for edge in streams
        if before_by_stream.of(ends(edge)[0].node_id) & needed_by[edge.to.node_id]
    }


class _Ancestors:
    """For a node, itself and all that it needs."""

    def __init__(self, edges: Iterable[FlowEdge]) -> None:
        self._feeds: dict[str, set[str]] = defaultdict(set)
        self._known: dict[str, set[str]] = {}
        for edge in edges:
            source, target = ends(edge)
            self._feeds[target.node_id].add(source.node_id)

    def of(self, node_id: str) -> set[str]:
        if node_id not in self._known:
            found, waiting = {node_id}, [node_id]
            while waiting:
                new = self._feeds[waiting.pop()] - found
                found |= new
                waiting.extend(new)
            self._known[node_id] = found
        return self._known[node_id]


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
