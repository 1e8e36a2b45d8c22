"""Conditions of edges, as `condition_source` reads them, and what they come to by the values of a run.

``value`` is what goes along the edge. What is not there is null; null and false do not carry, and everything else that
is not true is a mistake. An order between values of different kinds is never so.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "COMPARISONS",
    "Address",
    "BadCondition",
    "Compare",
    "Entries",
    "Every",
    "Expression",
    "Length",
    "Literal",
    "Not",
    "Reference",
    "carries",
    "joined",
    "parts_of",
    "references",
]

_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COMPARISONS = frozenset({*_ORDERS, "==", "!=", "in"})

Address: TypeAlias = tuple[str, str]


class BadCondition(Exception):
    """A condition cannot be read, or not be decided.

    Attributes:
        offset: Where in its text, from 0.
    """

    def __init__(self, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.offset = offset


class Literal(NamedTuple):
    """A value that stands in the condition; of a list its entries are expressions."""

    value: Any


class Reference(NamedTuple):
    """What is on an output pin, or within it; the address is None for what goes along the edge."""

    address: Address | None
    path: tuple[str | int, ...]
    begin: int
    end: int


class Length(NamedTuple):
    """The number of entries, members or characters."""

    of: Expression


class Not(NamedTuple):
    """Whether something is not so."""

    what: Expression


class Compare(NamedTuple):
    """Two values and how they are compared."""

    sign: str
    left: Expression
    right: Expression


class Every(NamedTuple):
    """Whether all are so, or with ``enough`` any of them."""

    parts: tuple[Expression, ...]
    enough: bool


class Entries(NamedTuple):
    """A list."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = Literal | Reference | Length | Not | Compare | Every | Entries


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions that an expression is made of."""
    match expression:
        case Length(of=inner) | Not(what=inner):
            return (inner,)
        case Compare(left=left, right=right):
            return left, right
        case Every(parts=parts) | Entries(parts=parts):
            return parts
    return ()


def references(expression: Expression) -> Iterator[Reference]:
    """Yield the references in an expression."""
    if isinstance(expression, Reference):
        yield expression
    for part in parts_of(expression):
        yield from references(part)


def joined(first: str, second: str) -> str:
    """Return the condition that both are so; an empty one is always so."""
    return f"({first}) and ({second})" if first and second else first or second


def carries(expression: Expression, values: Mapping[Address | None, Any]) -> bool:
    """Return whether an edge carries.

    Args:
        expression: Its condition.
        values: What JSON gives for each pin that it refers to, and under None for what goes along the edge.

    Raises:
        BadCondition: it comes to a value that is neither true nor false.
    """
    return _truth(_value(expression, values))


def _truth(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadCondition(f"comes to {str(value)[:64]!r}, which is neither true nor false")


def _value(expression: Expression, values: Mapping[Address | None, Any]) -> Any:
    match expression:
        case Literal(value=value):
            return value
        case Reference(address=address, path=path):
            return _within(values.get(address), path)
        case Length(of=inner):
            value = _value(inner, values)
            return len(value) if isinstance(value, str | list | dict) else 0
        case Entries(parts=parts):
            return [_value(part, values) for part in parts]
    return _decided(expression, values)


def _decided(expression: Not | Every | Compare, values: Mapping[Address | None, Any]) -> bool:
    match expression:
        case Not(what=inner):
            return not carries(inner, values)
        case Every(parts=parts, enough=enough):
            # Each is looked at until one decides.
            return next((enough for part in parts if carries(part, values) is enough), not enough)
        case Compare(sign=sign, left=left, right=right):
            return _compared(sign, _value(left, values), _value(right, values))


def _compared(sign: str, left: Any, right: Any) -> bool:
    if sign == "in":
        if isinstance(right, str):
            return isinstance(left, str) and left in right
        return isinstance(right, list | dict) and any(_equal(left, entry) for entry in right)
    if sign in {"==", "!="}:
        return _equal(left, right) is (sign == "==")
    alike = (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))
    return alike and _ORDERS[sign](left, right)


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right and isinstance(left, bool) == isinstance(right, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _within(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        elif isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value
