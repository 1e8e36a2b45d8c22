"""YAML text as nodes that know their line and column, within bounds.

The two passes are on purpose: libyaml's parser keeps its own stack, so that depth and number are bounded before the
composer, which recurses, sees the text.
"""

from __future__ import annotations

import math
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

__all__ = ["BadDocument", "compose", "plain"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 32
_MAX_PARTS = 50_000
_STR = "tag:yaml.org,2002:str"
_SCALARS = {
    "tag:yaml.org,2002:bool": SafeConstructor.construct_yaml_bool,
    "tag:yaml.org,2002:int": SafeConstructor.construct_yaml_int,
    "tag:yaml.org,2002:float": SafeConstructor.construct_yaml_float,
    "tag:yaml.org,2002:null": SafeConstructor.construct_yaml_null,
}
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
# Dates are text to a flow, as JSON has none.
_TEXTS = {_STR, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value", "tag:yaml.org,2002:merge"}


class BadDocument(Exception):
    """The text is not YAML, or not within bounds.

    Attributes:
        line: Line in the text, from 1.
        column: Column in the line, from 1.
    """

    def __init__(self, text: str, mark: Any = None) -> None:
        super().__init__(text)
        self.line = mark.line + 1 if mark is not None else 1
        self.column = mark.column + 1 if mark is not None else 1


def compose(text: str) -> yaml.Node:
    """Return the only document of a text.

    Raises:
        BadDocument: it is not YAML, is empty, has several documents, or nests or counts beyond bounds.
    """
    try:
        _check_bounds(text)
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise BadDocument(f"This is not YAML: {said}.", error.problem_mark or error.context_mark) from None
    except yaml.YAMLError as error:
        raise BadDocument(f"This is not YAML: {' '.join(str(error).split())[:500]}.") from None
    if root is None:
        raise BadDocument("The file is empty.")
    return root


def _check_bounds(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise BadDocument(f"Values nest deeper than {_MAX_DEPTH} levels.", event.start_mark)
        if count > _MAX_PARTS:
            raise BadDocument(f"The file has more than {_MAX_PARTS} values.", event.start_mark)


def plain(node: yaml.Node) -> Any:
    """Return a node as what JSON can say: dict, list, str, float or int, bool, None.

    Raises:
        BadDocument: a value has no JSON form, a key is there twice, or aliases grow it beyond bounds.
    """
    return _Plain().of(node, 0)


class _Plain:
    def __init__(self) -> None:
        self._parts = 0

    def of(self, node: yaml.Node, depth: int) -> Any:
        self._parts += 1
        # Aliases repeat nodes, even within themselves, and so are counted where they are used.
        if self._parts > _MAX_PARTS or depth > _MAX_DEPTH:
            raise BadDocument("Aliases make this value too large.", node.start_mark)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise BadDocument(f"The tag {node.tag[:64]!r} is not allowed.", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(entry, depth + 1) for entry in node.value]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadDocument("A key must be text.", key.start_mark)
            if key.value in mapping:
                raise BadDocument(f"The key {key.value[:64]!r} is there twice.", key.start_mark)
            mapping[key.value] = self.of(value, depth + 1)
        return mapping


def _scalar(node: Any) -> Any:
    if node.tag in _TEXTS:
        return node.value
    construct = _SCALARS.get(node.tag)
    if construct is None:
        raise BadDocument(f"The tag {node.tag[:64]!r} is not allowed.", node.start_mark)
    try:
        value = construct(SafeConstructor(), node)
        number = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except (ValueError, OverflowError, KeyError, IndexError):
        raise BadDocument(f"{node.value[:64]!r} is not a value.", node.start_mark) from None
    if isinstance(number, float) and not math.isfinite(number):
        raise BadDocument("A number must be finite.", node.start_mark)
    if isinstance(value, int) and abs(value) > 2**53:
        raise BadDocument("A whole number beyond 2^53 would lose digits; write it as text.", node.start_mark)
    return value
