"""The language of ``when``: text read into conditions.

::

    or         = and ("or" and)*
    and        = not ("and" not)*
    not        = "not" not | comparison
    comparison = operand [("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") operand]
    operand    = text | number | "true" | "false" | "null" | list | "len(" or ")" | "(" or ")" | reference
    reference  = ("value" | node "." pin) ("." name | "[" (whole number | text) "]")*
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, NoReturn

from mediamesh.orchestrator.conditions import (
    COMPARISONS,
    Address,
    BadCondition,
    Compare,
    Entries,
    Every,
    Expression,
    Length,
    Literal,
    Not,
    Reference,
    references,
)

__all__ = ["parse", "rewritten"]

_MAX_DEPTH = 16
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.-]))
    |(?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    |(?P<name>\.?[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*))""",
    re.VERBOSE,
)
_WORDS = {"true": True, "false": False, "null": None}
_RESERVED = {"and", "or", "not", "in"}


def parse(text: str, nodes: Collection[str]) -> Expression:
    """Read a condition.

    Args:
        text: The condition.
        nodes: Ids of the nodes of its flow; those of nested flows have dots.

    Raises:
        BadCondition: it is none.
    """
    return _Parser(text, nodes).whole()


def rewritten(text: str, nodes: Collection[str], change: Callable[[Address], Address]) -> str:
    """Return a condition whose references to pins are to other pins.

    Raises:
        BadCondition: it is none.
    """
    for found in sorted(references(parse(text, nodes)), key=lambda found: -found.begin):
        if found.address is not None:
            before = ".".join(found.address)
            rest = text[found.begin : found.end].removeprefix(before)
            text = f"{text[: found.begin]}{'.'.join(change(found.address))}{rest}{text[found.end :]}"
    return text


class _Token(NamedTuple):
    kind: str
    text: str
    begin: int
    end: int


class _Parser:
    def __init__(self, text: str, nodes: Collection[str]) -> None:
        self._text = text
        self._nodes = nodes
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        expression = self._or()
        if self._token.kind != "end":
            self._wrong()
        return expression

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _takes(self, *words: str) -> str:
        token = self._token
        if token.kind in {"sign", "name"} and token.text in words:
            self._next += 1
            return token.text
        return ""

    def _or(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise BadCondition(f"nests deeper than {_MAX_DEPTH} levels", self._token.begin)
        parts = [self._and()]
        while self._takes("or"):
            parts.append(self._and())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Every(tuple(parts), enough=True)

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._takes("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Every(tuple(parts), enough=False)

    def _not(self) -> Expression:
        count = 0
        while self._takes("not"):
            count += 1
        compared = self._comparison()
        return Not(compared) if count % 2 else compared

    def _comparison(self) -> Expression:
        left = self._operand()
        sign = self._takes(*COMPARISONS)
        return Compare(sign, left, self._operand()) if sign else left

    def _operand(self) -> Expression:
        token = self._token
        if self._takes("("):
            return self._bracketed()
        if self._takes("["):
            return self._entries()
        if token.kind not in {"text", "number", "name"} or token.text in _RESERVED or token.text.startswith("."):
            self._wrong()
        self._next += 1
        if token.kind != "name" or token.text in _WORDS:
            return _literal(token)
        if token.text == "len" and self._takes("("):
            return Length(self._bracketed())
        return self._reference(token)

    def _bracketed(self) -> Expression:
        inner = self._or()
        self._wants(")")
        return inner

    def _entries(self) -> Expression:
        parts: list[Expression] = []
        while not self._takes("]"):
            if parts:
                self._wants(",")
            parts.append(self._or())
        return Entries(tuple(parts))

    def _reference(self, token: _Token) -> Reference:
        address, names = self._address(token)
        path: list[str | int] = list(names)
        end = token.end
        while True:
            if self._token.kind == "name" and self._token.text.startswith(".") and self._token.begin == end:
                path.extend(self._token.text[1:].split("."))
                end = self._token.end
                self._next += 1
            elif self._takes("["):
                path.append(self._step())
                end = self._token.end
                self._wants("]")
            else:
                return Reference(address, tuple(path), token.begin, end)

    def _address(self, token: _Token) -> tuple[Address | None, list[str]]:
        names = token.text.split(".")
        if names[0] == "value":
            return None, names[1:]
        # Nodes of nested flows have dots in their ids, and no node's id is the beginning of another's up to a dot.
        for count in range(1, len(names)):
            if ".".join(names[:count]) in self._nodes:
                return (".".join(names[:count]), names[count]), names[count + 1 :]
        if len(names) == 1:
            raise BadCondition(
                f"has `{token.text}`, which is no value: text is quoted, a pin is `node.pin`", token.begin
            )
        return (names[0], names[1]), names[2:]

    def _step(self) -> str | int:
        token = self._token
        if token.kind == "text":
            self._next += 1
            return _unquoted(token.text)
        if token.kind == "number" and token.text.removeprefix("-").isdigit():
            self._next += 1
            return int(token.text)
        return self._wrong()

    def _wants(self, sign: str) -> None:
        if not self._takes(sign):
            self._wrong(f"; `{sign}` should come here")

    def _wrong(self, more: str = "") -> NoReturn:
        token = self._token
        found = f"`{token.text[:40]}`" if token.text else "its end"
        raise BadCondition(f"goes wrong at {found}{more}", token.begin)


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while match := _TOKEN.match(text, position):
        kind = match.lastgroup or ""
        yield _Token(kind, match[kind], match.start(kind), match.end())
        position = match.end()
    rest = text[position:].lstrip()
    begin = len(text) - len(rest)
    yield _Token("wrong" if rest else "end", rest, begin, len(text))


def _literal(token: _Token) -> Literal:
    if token.kind == "text":
        return Literal(_unquoted(token.text))
    if token.kind == "name":
        return Literal(_WORDS[token.text])
    return Literal(float(token.text) if {*token.text} & {*".eE"} else int(token.text))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
