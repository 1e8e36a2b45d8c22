"""A flow in layers: a node comes one layer after the last of those that it needs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowEdge, PinAddress

__all__ = ["ends", "layers"]


def ends(edge: FlowEdge) -> tuple[PinAddress, PinAddress]:
    """Return where an edge comes from and where it goes; ``from`` is a keyword of Python."""
    return getattr(edge, "from"), edge.to


def layers(flow: Flow) -> list[list[str]]:
    """Return the ids of the nodes, layer by layer, each ordered by where the nodes that it needs are.

    The longest path gives the layer (as in the method of Sugiyama, Tagawa and Toda, 1981); the mean of the places of
    what a node needs gives its place, so that edges cross less. Nodes of a cycle come in the last layers.
    """
    depth = {node.id: 0 for node in flow.nodes}
    needs: dict[str, list[str]] = defaultdict(list)
    for edge in flow.edges:
        source, target = ends(edge)
        if source.node_id in depth and target.node_id in depth:
            needs[target.node_id].append(source.node_id)
    # Once for each node is enough for a graph without cycles, and an end for one with.
    for _ in flow.nodes:
        for node, before in needs.items():
            depth[node] = min(max(depth[node], 1 + max(depth[one] for one in before)), len(flow.nodes) - 1)
    found: dict[int, list[str]] = defaultdict(list)
    for node, at in depth.items():
        found[at].append(node)
    place: dict[str, float] = {}
    ordered = []
    for at in sorted(found):
        layer = sorted(found[at], key=lambda node: _mean([place.get(one, 0.0) for one in needs[node]]))
        place |= {node: index - (len(layer) - 1) / 2 for index, node in enumerate(layer)}
        ordered.append(layer)
    return ordered


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
