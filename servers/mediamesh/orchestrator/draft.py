"""A flow while it is read and checked: the message, where each part stands in the file, and what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from mediamesh.api.flow.v1 import flow_pb2

__all__ = ["Draft", "among", "quoted"]

_MAX_ISSUES = 200


class Draft:
    """A flow in the making.

    Attributes:
        file: Name of the file.
        flow: As far as it could be read.
        issues: What is wrong so far, 200 at most.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.flow = flow_pb2.Flow()
        self.issues: list[flow_pb2.FlowIssue] = []
        self._places: dict[tuple[object, ...], tuple[int, int]] = {}

    def mark(self, mark: Any, *path: object) -> None:
        """Remember where a part of the flow stands; ``mark`` counts from 0 as YAML's do."""
        self._places[path] = mark.line + 1, mark.column + 1

    def wrong(self, code: flow_pb2.FlowIssueCode.ValueType, message: str, *path: object) -> None:
        """Take note of an issue at a part of the flow, or at the nearest part around it that has a place."""
        while path and path not in self._places:
            path = path[:-1]
        self.wrong_at(code, message, *self._places.get(path, (1, 1)))

    def wrong_at(self, code: flow_pb2.FlowIssueCode.ValueType, message: str, line: int, column: int) -> None:
        """Take note of an issue at a line and column, both from 1."""
        if len(self.issues) < _MAX_ISSUES:
            self.issues.append(
                flow_pb2.FlowIssue(code=code, message=message[:2048], file=self.file, line=line, column=column)
            )

    def in_order(self) -> list[flow_pb2.FlowIssue]:
        """Return the issues in the order of the file."""
        return sorted(self.issues, key=lambda issue: (issue.line, issue.column))


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
