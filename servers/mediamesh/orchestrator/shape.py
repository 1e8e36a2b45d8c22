"""Reads the shape of a YAML document: what is not as it should be becomes an issue of the draft, at its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.document import BadDocument, plain
from mediamesh.orchestrator.draft import among, quoted

if TYPE_CHECKING:
    import re

    from mediamesh.orchestrator.draft import Draft

__all__ = ["Shape", "place"]

_T = TypeVar("_T")
_NULL = "tag:yaml.org,2002:null"


class Shape:
    """Readers of YAML nodes that go on whatever they find.

    Args:
        draft: Told of what is wrong.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def mapping(
        self, node: yaml.Node, what: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> Mapping[str, yaml.Node]:
        """Return the values of a mapping by their keys; unknown and missing keys are told."""
        known = (*required, *optional)
        found: dict[str, yaml.Node] = {}
        for key, value in self.pairs(node, what):
            if key in known:
                found[key] = value
            else:
                self.wrong(value, f"{what} has no key {quoted(key)}.{among(key, known)}")
        if isinstance(node, yaml.MappingNode):
            for key in required:
                if key not in found:
                    self.wrong(node, f"{what} needs the key {quoted(key)}.")
        return found

    def pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node]]:
        """Return keys and values of a mapping, each key once."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} must be a mapping.")
            return []
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong(key, "A key must be text.")
            elif key.value in pairs:
                self.wrong(key, f"The key {quoted(key.value)} is there twice.")
            else:
                pairs[key.value] = value
        return list(pairs.items())

    def sequence(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """Return the entries of a list; none where there is no list."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} must be a list.")
            return []
        return list(node.value)

    def text(
        self, node: yaml.Node, what: str, pattern: re.Pattern[str] | None = None, rule: str = "", *, limit: int = 1024
    ) -> str:
        """Return a text, or an empty one after it was told what is wrong with it."""
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
            self.wrong(node, f"{quoted(what)} must be text.")
            return ""
        text: str = node.value
        if pattern is not None and not pattern.fullmatch(text):
            self.wrong(node, f"{quoted(what)} is {rule}, not {quoted(text)}.")
            return ""
        if len(text) > limit:
            self.wrong(node, f"{quoted(what)} has at most {limit} characters, not {len(text)}.")
            return ""
        return text

    def choice(self, node: yaml.Node, what: str, choices: Mapping[str, _T]) -> _T | None:
        """Return what one of several words stands for."""
        said = self.text(node, what)
        if said and said not in choices:
            self.wrong(node, f"{quoted(what)} is one of {', '.join(map(quoted, choices))}, not {quoted(said)}.")
        return choices.get(said)

    def number(self, node: yaml.Node, rule: str, *, least: float, most: float, whole: bool = False) -> float | None:
        """Return a number between two others, both included.

        Args:
            node: Where it stands.
            rule: The sentence that says what it must be.
            least: Smallest.
            most: Largest.
            whole: Whether it may have no fraction.
        """
        try:
            said = plain(node)
        except BadDocument:
            said = None
        wanted = int if whole else int | float
        if isinstance(said, bool) or not isinstance(said, wanted) or not least <= said <= most:
            self.wrong(node, rule)
            return None
        return said

    def flag(self, node: yaml.Node, what: str) -> bool | None:
        """Return true or false."""
        try:
            said = plain(node)
        except BadDocument:
            said = None
        if not isinstance(said, bool):
            self.wrong(node, f"{quoted(what)} is true or false.")
            return None
        return said

    def wrong(self, node: Any, message: str) -> None:
        """Tell what is wrong with a node."""
        self._draft.wrong_at(flow_pb2.FLOW_ISSUE_CODE_SYNTAX, message, *place(node))


def place(node: Any) -> tuple[int, int]:
    """Return line and column of a YAML node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1
