"""Reads the text of a flow; everything that is wrong with its shape is found at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.document import BadDocument, compose, plain
from mediamesh.orchestrator.draft import Draft, among, quoted

__all__ = ["read_flow"]

_SYNTAX = flow_pb2.FLOW_ISSUE_CODE_SYNTAX
_MAX_EDGES = 4096
_MAX_TIMEOUT_SECONDS = 86_400
_OPTIONAL = ("params", "outputs", "timeout", "response")
_RESPONSES = {"sync": ResponseMode.RESPONSE_MODE_SYNC, "streaming": ResponseMode.RESPONSE_MODE_STREAMING}
_FLOW_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
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
        self._max_nodes = max_nodes

    def read(self, root: yaml.Node) -> None:
        top = self._mapping(root, "The file", required=("apiVersion", "kind", "meta", "graph"))
        for key, wanted in (("apiVersion", "v1beta1"), ("kind", "Flow")):
            if key in top and (said := self._text(top[key], key)) != wanted and said:
                self._wrong(top[key], f"{quoted(key)} must be {quoted(wanted)}, not {quoted(said)}.")
        if "meta" in top:
            self._meta(top["meta"])
        if "graph" in top:
            self._graph(top["graph"])

    def _meta(self, node: yaml.Node) -> None:
        meta = self._mapping(node, "`meta`", required=("id",), optional=("name", "description"))
        if "id" in meta:
            self._flow.id = self._text(
                meta["id"], "meta.id", _FLOW_ID, "letters, digits, `.`, `_`, `-`, 128 characters at most"
            )
        if "name" in meta:
            self._flow.name = self._text(meta["name"], "meta.name", limit=255)
        if "description" in meta:
            self._flow.description = self._text(meta["description"], "meta.description", limit=4096)

    def _graph(self, node: yaml.Node) -> None:
        graph = self._mapping(node, "`graph`", required=("nodes",), optional=("edges",))
        nodes = self._sequence(graph.get("nodes"), "`graph.nodes`")
        edges = self._sequence(graph.get("edges"), "`graph.edges`")
        for what, entries, limit in (("nodes", nodes, self._max_nodes), ("edges", edges, _MAX_EDGES)):
            if len(entries) > limit:
                self._wrong(graph[what], f"A flow has at most {limit} {what}; this one has {len(entries)}.")
        if "nodes" in graph and not nodes:
            self._wrong(graph["nodes"], "A flow has at least one node.")
        for entry in nodes[: self._max_nodes]:
            self._node(entry)
        for entry in edges[:_MAX_EDGES]:
            self._edge(entry)

    def _node(self, node: yaml.Node) -> None:
        parts = self._mapping(
            node, "A node", required=("id", "type"), optional=("params", "outputs", "timeout", "response")
        )
        if "id" not in parts:
            return
        node_id = self._text(parts["id"], "id", _NODE_ID, "letters, digits, `_` and `-`, 64 characters at most")
        if not node_id:
            return
        if any(known.id == node_id for known in self._flow.nodes):
            line = next(known.line for known in self._flow.nodes if known.id == node_id)
            self._draft.wrong_at(
                flow_pb2.FLOW_ISSUE_CODE_DUPLICATE_NODE,
                f"The node {quoted(node_id)} is there twice; the first is in line {line}.",
                *_place(parts["id"]),
            )
            return
        read = self._flow.nodes.add(id=node_id, line=_place(node)[0])
        self._draft.mark(node.start_mark, node_id)
        if "type" in parts:
            self._draft.mark(parts["type"].start_mark, node_id, "type")
            read.type = self._text(parts["type"], "type", limit=128)
        for name in ("params", "outputs"):
            if name in parts:
                self._values(parts[name], read, name)
        if "timeout" in parts:
            self._timeout(parts["timeout"], read)
        if "response" in parts:
            self._response(parts["response"], read)

    def _values(self, node: yaml.Node, read: flow_pb2.FlowNode, name: str) -> None:
        self._draft.mark(node.start_mark, read.id, name)
        # An empty mapping says something too: constants, none of them.
        into = getattr(read, name)
        into.SetInParent()
        for key, value in self._pairs(node, f"`{name}`"):
            self._draft.mark(value.start_mark, read.id, name, key)
            try:
                into.update({key: plain(value)})
            except BadDocument as error:
                self._draft.wrong_at(_SYNTAX, str(error), error.line, error.column)

    def _timeout(self, node: yaml.Node, read: flow_pb2.FlowNode) -> None:
        try:
            seconds = plain(node)
        except BadDocument:
            seconds = None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
            self._wrong(node, f"`timeout` is a number of seconds above 0, {_MAX_TIMEOUT_SECONDS} at most.")
            return
        read.timeout.FromNanoseconds(max(1, round(seconds * 1e9)))

    def _response(self, node: yaml.Node, read: flow_pb2.FlowNode) -> None:
        said = self._text(node, "response")
        if said in _RESPONSES:
            read.response_mode = _RESPONSES[said]
            self._draft.mark(node.start_mark, read.id, "response")
        elif said:
            self._wrong(node, f"`response` is one of {', '.join(map(quoted, _RESPONSES))}, not {quoted(said)}.")

    def _edge(self, node: yaml.Node) -> None:
        parts = self._mapping(node, "An edge", required=("from", "to"))
        ends = {name: self._address(parts[name], name) for name in ("from", "to") if name in parts}
        if len(ends) < 2 or not all(ends.values()):
            return
        index = len(self._flow.edges)
        edge = self._flow.edges.add(line=_place(node)[0])
        for name, address in ends.items():
            self._draft.mark(parts[name].start_mark, index, name)
            getattr(edge, name).CopyFrom(address)

    def _address(self, node: yaml.Node, what: str) -> flow_pb2.PinAddress | None:
        text = self._text(node, what)
        if not text:
            return None
        match = _ADDRESS.fullmatch(text)
        if match is None:
            self._wrong(node, f"`{what}` is `node.pin`, not {quoted(text)}.")
            return None
        return flow_pb2.PinAddress(node_id=match[1], pin=match[2])

    def _mapping(
        self, node: yaml.Node, what: str, *, required: Sequence[str], optional: Sequence[str] = ()
    ) -> Mapping[str, yaml.Node]:
        known = (*required, *optional)
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, what):
            if key in known:
                found[key] = value
            else:
                self._wrong(value, f"{what} has no key {quoted(key)}.{among(key, known)}")
        if isinstance(node, yaml.MappingNode):
            for key in required:
                if key not in found:
                    self._wrong(node, f"{what} needs the key {quoted(key)}.")
        return found

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"{what} must be a mapping.")
            return []
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, "A key must be text.")
            elif key.value in pairs:
                self._wrong(key, f"The key {quoted(key.value)} is there twice.")
            else:
                pairs[key.value] = value
        return list(pairs.items())

    def _sequence(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(node, f"{what} must be a list.")
            return []
        return list(node.value)

    def _text(
        self, node: yaml.Node, what: str, pattern: re.Pattern[str] | None = None, rule: str = "", *, limit: int = 1024
    ) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
            self._wrong(node, f"{quoted(what)} must be text.")
            return ""
        text: str = node.value
        if pattern is not None and not pattern.fullmatch(text):
            self._wrong(node, f"{quoted(what)} is {rule}, not {quoted(text)}.")
            return ""
        if len(text) > limit:
            self._wrong(node, f"{quoted(what)} has at most {limit} characters, not {len(text)}.")
            return ""
        return text

    def _wrong(self, node: yaml.Node, message: str) -> None:
        self._draft.wrong_at(_SYNTAX, message, *_place(node))


def _place(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
