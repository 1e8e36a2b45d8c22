"""Reads one node of a flow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.document import BadDocument, plain
from mediamesh.orchestrator.draft import quoted
from mediamesh.orchestrator.shape import Shape, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.duration_pb2 import Duration

    from mediamesh.orchestrator.draft import Draft

__all__ = ["NodeReader"]

_MAX_TIMEOUT_SECONDS = 86_400
_MAX_BACKOFF_SECONDS = 3600
_MAX_RETRIES = 20
_MAX_MULTIPLIER = 10
_OPTIONAL = ("params", "outputs", "timeout", "response", "retries", "cache", "forEach")
_RESPONSES = {"sync": ResponseMode.RESPONSE_MODE_SYNC, "streaming": ResponseMode.RESPONSE_MODE_STREAMING}
_ON_ERROR = {
    "fail": flow_pb2.ELEMENT_FAILURE_FAIL,
    "keep": flow_pb2.ELEMENT_FAILURE_KEEP,
    "drop": flow_pb2.ELEMENT_FAILURE_DROP,
}
_MAX_PARALLEL = 64
_PIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PATH = re.compile(r"[^\x00-\x1f]+")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class NodeReader:
    """Adds nodes to a draft.

    Args:
        draft: What is read so far.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._shape = Shape(draft)

    def read(self, node: yaml.Node) -> None:
        """Read a node; without an id of its own it is left out."""
        parts = self._parts(node)
        node_id = self._id(parts)
        if not node_id:
            return
        read = self._draft.flow.nodes.add(id=node_id, line=place(node)[0])
        self._draft.mark(node.start_mark, node_id)
        for name, part in parts.items():
            self._part(name, part, read)

    def _parts(self, node: yaml.Node) -> Mapping[str, yaml.Node]:
        keys = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
        if "flow" in keys:
            what = "A node that is a flow"
            return self._shape.mapping(node, what, required=("id", "flow"), optional=("params",))
        return self._shape.mapping(node, "A node", required=("id", "type"), optional=(*_OPTIONAL, "flow"))

    def _id(self, parts: Mapping[str, yaml.Node]) -> str:
        if "id" not in parts:
            return ""
        rule = "letters, digits, `_` and `-`, 64 characters at most"
        node_id = self._shape.text(parts["id"], "id", _NODE_ID, rule)
        known = next((known for known in self._draft.flow.nodes if known.id == node_id), None)
        if known is None:
            return node_id
        self._draft.wrong_at(
            flow_pb2.FLOW_ISSUE_CODE_DUPLICATE_NODE,
            f"The node {quoted(node_id)} is there twice; the first is in line {known.line}.",
            *place(parts["id"]),
        )
        return ""

    def _part(self, name: str, part: yaml.Node, read: flow_pb2.FlowNode) -> None:
        if name != "id":
            self._draft.mark(part.start_mark, read.id, name)
        match name:
            case "type":
                read.type = self._shape.text(part, "type", limit=128)
            case "flow":
                if path := self._shape.text(part, "flow", _PATH, "the path of a file", limit=255):
                    self._draft.parts[read.id] = path
            case "params" | "outputs":
                self._values(part, read, name)
            case "timeout":
                rule = f"`timeout` is a number of seconds above 0, {_MAX_TIMEOUT_SECONDS} at most."
                self._seconds(part, rule, read.timeout, least=1e-9, most=_MAX_TIMEOUT_SECONDS)
            case "response":
                if (mode := self._shape.choice(part, "response", _RESPONSES)) is not None:
                    read.response_mode = mode
            case "retries":
                self._retries(part, read)
            case "forEach":
                self._for_each(part, read)
            case "cache":
                if (cache := self._shape.flag(part, "cache")) is not None:
                    read.cache = cache

    def _values(self, node: yaml.Node, read: flow_pb2.FlowNode, name: str) -> None:
        # An empty mapping says something too: constants, none of them.
        into = getattr(read, name)
        into.SetInParent()
        for key, value in self._shape.pairs(node, f"`{name}`"):
            self._draft.mark(value.start_mark, read.id, name, key)
            try:
                into.update({key: plain(value)})
            except BadDocument as error:
                self._draft.wrong_at(flow_pb2.FLOW_ISSUE_CODE_SYNTAX, str(error), error.line, error.column)

    def _for_each(self, node: yaml.Node, read: flow_pb2.FlowNode) -> None:
        """Read what to run over: the name of a pin, or a mapping that also says how."""
        parts = {"pin": node}
        if isinstance(node, yaml.MappingNode):
            known = ("parallel", "onError")
            parts = dict(self._shape.mapping(node, "`forEach`", required=("pin",), optional=known))
        each = read.for_each
        for name, part in parts.items():
            self._draft.mark(part.start_mark, read.id, "forEach", name)
            if name == "pin":
                each.pin = self._shape.text(part, "forEach", _PIN, "the name of an input pin")
            elif name == "parallel":
                rule = f"`parallel` is a whole number from 1 to {_MAX_PARALLEL}."
                each.parallel = int(self._shape.number(part, rule, least=1, most=_MAX_PARALLEL, whole=True) or 0)
            elif (policy := self._shape.choice(part, "onError", _ON_ERROR)) is not None:
                each.on_error = policy

    def _retries(self, node: yaml.Node, read: flow_pb2.FlowNode) -> None:
        """Read how often to try again: a number, or a mapping with the pauses."""
        parts = {"max": node}
        if isinstance(node, yaml.MappingNode):
            known = ("initialBackoff", "maxBackoff", "multiplier")
            parts = dict(self._shape.mapping(node, "`retries`", required=("max",), optional=known))
        retry = read.retry
        for name, part in parts.items():
            if name == "max":
                rule = f"`retries` is a whole number from 0 to {_MAX_RETRIES}."
                most = self._shape.number(part, rule, least=0, most=_MAX_RETRIES, whole=True)
                retry.max_attempts = 1 + int(most or 0)
            elif name == "multiplier":
                rule = f"`multiplier` is a number from 1 to {_MAX_MULTIPLIER}."
                retry.backoff_multiplier = self._shape.number(part, rule, least=1, most=_MAX_MULTIPLIER) or 0
            else:
                into = retry.initial_backoff if name == "initialBackoff" else retry.max_backoff
                rule = f"`{name}` is a number of seconds from 0 to {_MAX_BACKOFF_SECONDS}."
                self._seconds(part, rule, into, least=0, most=_MAX_BACKOFF_SECONDS)
        if retry.HasField("max_backoff") and retry.max_backoff.ToNanoseconds() < retry.initial_backoff.ToNanoseconds():
            self._shape.wrong(parts["maxBackoff"], "`maxBackoff` is not below `initialBackoff`.")

    def _seconds(self, node: yaml.Node, rule: str, into: Duration, *, least: float, most: float) -> None:
        if (seconds := self._shape.number(node, rule, least=least, most=most)) is not None:
            into.FromNanoseconds(round(seconds * 1e9))
            into.SetInParent()
