"""Flows within flows: a node that names another file stands for the nodes of that file.

The client's ends of the inner flow are the pins of the node: its ``ui.file-upload`` and ``ui.audio-recorder`` nodes are
inputs by their ids, its ``ui.stream-console`` and ``ui.stream-viewer`` nodes outputs. An end that an edge of the outer
flow joins vanishes; one that no edge joins stays an end of the whole.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.draft import Draft, among, quoted
from mediamesh.orchestrator.source import read_flow
from mediamesh.orchestrator.splice import splice

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["expanded"]

_MAX_DEPTH = 8
_SUFFIX = ".mlab"


def expanded(source: flow_pb2.FlowSource, *, max_nodes: int) -> Draft:
    """Read a flow and, in the place of nodes that name other files, the nodes of these.

    Args:
        source: The flow and its files.
        max_nodes: Most nodes that it may have in the end.
    """
    return _Expansion(source, max_nodes).whole()


class _Expansion:
    def __init__(self, source: flow_pb2.FlowSource, max_nodes: int) -> None:
        self._source = source
        self._max_nodes = max_nodes
        self._texts = {posixpath.normpath(file.name): file.yaml for file in source.files}
        self._known: dict[str, Draft] = {}
        self._used: set[str] = set()

    def whole(self) -> Draft:
        main = read_flow(self._source, max_nodes=self._max_nodes)
        draft = self._with_parts(main, "", [main.file])
        for name in sorted(self._used):
            for issue in self._known[name].issues:
                draft.take(issue)
        return draft

    def _with_parts(self, draft: Draft, name: str, chain: Sequence[str]) -> Draft:
        """Return a draft with the nodes of the flows that it names; ``name`` is its own path, empty for the first."""
        parts: dict[str, Draft] = {}
        for node_id, path in draft.parts.items():
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
            if (part := self._inner(draft, node_id, inner, chain)) is not None:
                parts[node_id] = part
        return splice(draft, parts, max_nodes=self._max_nodes) if parts else draft

    def _inner(self, draft: Draft, node_id: str, name: str, chain: Sequence[str]) -> Draft | None:
        place = (node_id, "flow")
        if not name.endswith(_SUFFIX) or posixpath.isabs(name):
            draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_SYNTAX,
                f"`flow` is the path of a {_SUFFIX} file, from the folder of this one, "
                f"not {quoted(draft.parts[node_id])}.",
                *place,
            )
        elif name in chain:
            path = " → ".join(map(quoted, [*chain[chain.index(name) :], name]))
            draft.wrong(flow_pb2.FLOW_ISSUE_CODE_CYCLE, f"This flow would contain itself: {path}.", *place)
        elif name not in self._texts:
            known = [known for known in self._texts if known not in chain]
            draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_FILE, f"There is no file {quoted(name)}.{among(name, known)}", *place
            )
        elif len(chain) > _MAX_DEPTH:
            draft.wrong(flow_pb2.FLOW_ISSUE_CODE_SYNTAX, f"Flows nest deeper than {_MAX_DEPTH} levels.", *place)
        else:
            return self._read(name, [*chain, name])
        return None

    def _read(self, name: str, chain: Sequence[str]) -> Draft:
        # A file is read once, however often it is named: what it says does not depend on who names it.
        if name not in self._known:
            read = read_flow(flow_pb2.FlowSource(name=name, yaml=self._texts[name]), max_nodes=self._max_nodes)
            self._known[name] = self._with_parts(read, name, chain)
            self._used.add(name)
        return self._known[name]
