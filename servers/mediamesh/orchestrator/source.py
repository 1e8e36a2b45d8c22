"""Reads the text of a flow; everything that is wrong with its shape is found at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.condition_source import parse
from mediamesh.orchestrator.conditions import BadCondition
from mediamesh.orchestrator.document import BadDocument, compose
from mediamesh.orchestrator.draft import Draft, quoted
from mediamesh.orchestrator.node_source import NodeReader
from mediamesh.orchestrator.shape import Shape, place

if TYPE_CHECKING:
    import yaml

__all__ = ["read_flow"]

_SYNTAX = flow_pb2.FLOW_ISSUE_CODE_SYNTAX
_MAX_EDGES = 4096
_FLOW_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.([A-Za-z][A-Za-z0-9_-]{0,63})")


def read_flow(source: flow_pb2.FlowSource, *, max_nodes: int) -> Draft:
    """Read the text; what is not of the shape of a flow becomes an issue, and the rest is read on."""
    draft = Draft(source.name or "flow.mlab")
    try:
        root = compose(source.yaml)
    except BadDocument as error:
        draft.wrong_at(_SYNTAX, str(error), error.line, error.column)
        return draft
    _Reader(draft, max_nodes).read(root)
    return draft


class _Reader:
    def __init__(self, draft: Draft, max_nodes: int) -> None:
        self._draft = draft
        self._flow = draft.flow
        self._shape = Shape(draft)
        self._nodes = NodeReader(draft)
        self._max_nodes = max_nodes

    def read(self, root: yaml.Node) -> None:
        top = self._shape.mapping(root, "The file", required=("apiVersion", "kind", "meta", "graph"))
        for key, wanted in (("apiVersion", "v1beta1"), ("kind", "Flow")):
            if key in top and (said := self._shape.text(top[key], key)) != wanted and said:
                self._shape.wrong(top[key], f"{quoted(key)} must be {quoted(wanted)}, not {quoted(said)}.")
        if "meta" in top:
            self._meta(top["meta"])
        if "graph" in top:
            self._graph(top["graph"])

    def _meta(self, node: yaml.Node) -> None:
        meta = self._shape.mapping(node, "`meta`", required=("id",), optional=("name", "description"))
        if "id" in meta:
            self._flow.id = self._shape.text(
                meta["id"], "meta.id", _FLOW_ID, "letters, digits, `.`, `_`, `-`, 128 characters at most"
            )
        if "name" in meta:
            self._flow.name = self._shape.text(meta["name"], "meta.name", limit=255)
        if "description" in meta:
            self._flow.description = self._shape.text(meta["description"], "meta.description", limit=4096)

    def _graph(self, node: yaml.Node) -> None:
        graph = self._shape.mapping(node, "`graph`", required=("nodes",), optional=("edges",))
        nodes = self._shape.sequence(graph.get("nodes"), "`graph.nodes`")
        edges = self._shape.sequence(graph.get("edges"), "`graph.edges`")
        for what, entries, limit in (("nodes", nodes, self._max_nodes), ("edges", edges, _MAX_EDGES)):
            if len(entries) > limit:
                self._shape.wrong(graph[what], f"A flow has at most {limit} {what}; this one has {len(entries)}.")
        if "nodes" in graph and not nodes:
            self._shape.wrong(graph["nodes"], "A flow has at least one node.")
        for entry in nodes[: self._max_nodes]:
            self._nodes.read(entry)
        for entry in edges[:_MAX_EDGES]:
            self._edge(entry)

    def _edge(self, node: yaml.Node) -> None:
        parts = self._shape.mapping(node, "An edge", required=("from", "to"), optional=("when",))
        ends = {name: self._address(parts[name], name) for name in ("from", "to") if name in parts}
        if len(ends) < 2 or not all(ends.values()):
            return
        index = len(self._flow.edges)
        edge = self._flow.edges.add(line=place(node)[0])
        self._draft.mark(node.start_mark, index)
        for name, address in ends.items():
            self._draft.mark(parts[name].start_mark, index, name)
            getattr(edge, name).CopyFrom(address)
        if "when" in parts:
            self._draft.mark(parts["when"].start_mark, index, "when")
            edge.when = self._condition(parts["when"])

    def _condition(self, node: yaml.Node) -> str:
        text = self._shape.text(node, "when")
        if not text:
            return ""
        try:
            parse(text, {known.id for known in self._flow.nodes})
        except BadCondition as error:
            line, column = place(node)
            if "\n" not in text:
                column += error.offset + (getattr(node, "style", None) in {"'", '"'})
            self._draft.wrong_at(flow_pb2.FLOW_ISSUE_CODE_INVALID_CONDITION, f"The condition {error}.", line, column)
            return ""
        return text

    def _address(self, node: yaml.Node, what: str) -> flow_pb2.PinAddress | None:
        text = self._shape.text(node, what)
        if not text:
            return None
        match = _ADDRESS.fullmatch(text)
        if match is None:
            self._shape.wrong(node, f"`{what}` is `node.pin`, not {quoted(text)}.")
            return None
        return flow_pb2.PinAddress(node_id=match[1], pin=match[2])
