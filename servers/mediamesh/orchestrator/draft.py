"""A flow while it is read and checked: the message, where each part stands in which file, and what is wrong."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from mediamesh.api.flow.v1 import flow_pb2

__all__ = ["Draft", "Place", "among", "quoted"]

_MAX_ISSUES = 200


class Place(NamedTuple):
    """Where something stands.

    Attributes:
        file: Name of the file.
        line: From 1.
        column: From 1.
    """

    file: str
    line: int
    column: int


class Draft:
    """A flow in the making.

    Attributes:
        file: Name of the file.
        flow: As far as it could be read.
        parts: The file of the flow that a node stands for, by node.
        issues: What is wrong so far, 200 at most.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.flow = flow_pb2.Flow()
        self.parts: dict[str, str] = {}
        self.issues: list[flow_pb2.FlowIssue] = []
        # Of each node, by its id, and of each edge, by its index: what has a place, by its path there.
        self._places: dict[object, dict[tuple[object, ...], Place]] = defaultdict(dict)

    def mark(self, mark: Any, *path: object) -> None:
        """Remember where a part of the flow stands; ``mark`` counts from 0 as YAML's do."""
        self.put(Place(self.file, mark.line + 1, mark.column + 1), *path)

    def put(self, place: Place, *path: object) -> None:
        """Remember where a part of the flow stands: a node by its id, an edge by its index, and what is in them."""
        self._places[path[0]][path[1:]] = place

    def place(self, *path: object) -> Place:
        """Return where a part of the flow stands, or the nearest part around it that has a place."""
        known = self._places.get(path[0], {}) if path else {}
        rest = path[1:]
        while rest and rest not in known:
            rest = rest[:-1]
        return known.get(rest, Place(self.file, 1, 1))

    def take_places(self, other: Draft, node_id: str, new_id: str) -> None:
        """Remember where a node of another draft stands, and what is in it, under a new id."""
        for path, place in other._places[node_id].items():
            self.put(place, new_id, *path)

    def take(self, issue: flow_pb2.FlowIssue) -> None:
        """Take over an issue; a flow that is used twice has its mistakes once."""
        if len(self.issues) < _MAX_ISSUES and issue not in self.issues:
            self.issues.append(issue)

    def wrong(self, code: flow_pb2.FlowIssueCode.ValueType, message: str, *path: object) -> None:
        """Take note of an issue at a part of the flow, or at the nearest part around it that has a place."""
        place = self.place(*path)
        self.wrong_at(code, message, place.line, place.column, place.file)

    def wrong_at(
        self, code: flow_pb2.FlowIssueCode.ValueType, message: str, line: int, column: int, file: str = ""
    ) -> None:
        """Take note of an issue at a line and column, both from 1, of this file or another one."""
        issue = flow_pb2.FlowIssue(code=code, message=message[:2048], file=file or self.file, line=line, column=column)
        self.take(issue)

    def in_order(self) -> list[flow_pb2.FlowIssue]:
        """Return the issues in the order of the file, and after them those of the files that it uses."""
        return sorted(self.issues, key=lambda issue: (issue.file != self.file, issue.file, issue.line, issue.column))


def quoted(name: object) -> str:
    """Return a name for a message, cut short if it is very long."""
    text = str(name)
    return f"`{text[:80]}…`" if len(text) > 80 else f"`{text}`"


def among(name: str, known: Iterable[str]) -> str:
    """Return a sentence, with a space before it, that helps who wrote a name that is not known."""
    names = sorted(known)
    if close := difflib.get_close_matches(name[:128], names, 1):
        return f" Did you mean {quoted(close[0])}?"
    if not names:
        return " There are none."
    return f" There are {', '.join(map(quoted, names[:12]))}{' and more' if len(names) > 12 else ''}."
