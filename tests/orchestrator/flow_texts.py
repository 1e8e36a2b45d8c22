"""Texts of flows for tests."""

from __future__ import annotations

from collections.abc import Mapping

from mediamesh.api.flow.v1.flow_pb2 import FlowSource


def flow(*nodes: str, edges: str = "", when: Mapping[str, str] | None = None, name: str = "test.mlab") -> FlowSource:
    """Return a flow: nodes as `id type` with the rest of the mapping after a comma, edges as `a.b>c.d` with blanks.

    A node without a type is an id with the rest after a comma. ``when`` has conditions by edge.
    """
    lines = ["apiVersion: v1beta1", "kind: Flow", "meta: {id: test}", "graph:", "  nodes:"]
    for node in nodes:
        head, _, rest = node.partition(",")
        node_id, *kind = head.split()
        keys = [f"id: {node_id}", *(f"type: {name}" for name in kind), *([rest.strip()] if rest else [])]
        lines.append(f"    - {{{', '.join(keys)}}}")
    lines.append("  edges:")
    for edge in edges.split():
        start, end = edge.split(">")
        condition = f', when: "{when[edge]}"' if when and edge in when else ""
        lines.append(f"    - {{from: {start}, to: {end}{condition}}}")
    return FlowSource(name=name, yaml="\n".join(lines))


# `make` has ended when `hold` has the run wait; `count` needs the chunks of the one and the text of the other.
HELD = flow(
    "text test.echo, outputs: {text: hello}",
    "echo test.echo",
    "make test.producer, params: {count: 40}",
    "hold test.slow",
    "count test.consumer",
    "show ui.stream-console",
    edges="text.text>echo.text echo.text>hold.text make.stream>count.stream hold.text>count.text "
    "count.count>show.input",
)
