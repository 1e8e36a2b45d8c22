"""Parameters and constants that refer to constants: ``${node.pin}`` stands for the constant output of a node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from google.protobuf import struct_pb2

from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.draft import among, quoted
from mediamesh.orchestrator.wiring import is_constant

if TYPE_CHECKING:
    from mediamesh.orchestrator.draft import Draft

__all__ = ["prefix_references", "resolve_references"]

_REFERENCE = re.compile(r"\$\{([^{}$]{1,200})\}")
_ESCAPED = "$${"
_MAX_DEPTH = 64
_MAX_BYTES = 4 * 1024 * 1024


def prefix_references(struct: struct_pb2.Struct, prefix: str) -> None:
    """Make every reference in the values one to a node whose id has a prefix."""
    for holder in _texts(struct):
        if match := _REFERENCE.fullmatch(holder.string_value):
            holder.string_value = f"${{{prefix}{match[1].strip()}}}"


def resolve_references(draft: Draft) -> set[tuple[str, str, str]]:
    """Put what constants say into the place of the references to them; tell those to what is no constant.

    Returns:
        The parameters and constants that have one of these, each by node, ``params`` or ``outputs``, and name.
    """
    resolver = _Resolver(draft)
    for node in draft.flow.nodes:
        # First the constants, as what parameters refer to may itself refer to another.
        for name in sorted(node.outputs.fields):
            resolver.constant((node.id, name))
    for node in draft.flow.nodes:
        for name, value in node.params.fields.items():
            resolver.fill(value, (node.id, "params", name))
    return resolver.broken


def _texts(struct: struct_pb2.Struct) -> Iterator[struct_pb2.Value]:
    for value in struct.fields.values():
        yield from _texts_in(value)


def _texts_in(value: struct_pb2.Value) -> Iterator[struct_pb2.Value]:
    match value.WhichOneof("kind"):
        case "string_value":
            yield value
        case "list_value":
            for entry in value.list_value.values:
                yield from _texts_in(entry)
        case "struct_value":
            yield from _texts(value.struct_value)


class _Resolver:
    def __init__(self, draft: Draft) -> None:
        self.broken: set[tuple[str, str, str]] = set()
        self._draft = draft
        self._nodes = {node.id: node for node in draft.flow.nodes}
        self._done: set[tuple[str, str]] = set()
        self._open: list[tuple[str, str]] = []
        self._bytes = 0

    def constant(self, address: tuple[str, str]) -> struct_pb2.Value:
        """Return a constant with its own references resolved."""
        value = self._nodes[address[0]].outputs.fields[address[1]]
        if address not in self._done:
            self._open.append(address)
            self.fill(value, (address[0], "outputs", address[1]))
            self._open.pop()
            self._done.add(address)
        return value

    def fill(self, value: struct_pb2.Value, path: tuple[str, str, str]) -> None:
        """Resolve the references in a value, which stands at a path of the draft."""
        # The list is made first, as what comes in place of a reference has none of its own any more.
        for holder in list(_texts_in(value)):
            text = holder.string_value
            if match := _REFERENCE.fullmatch(text):
                found = self._found(match[1].strip(), path)
                if found is None:
                    self.broken.add(path)
                else:
                    holder.CopyFrom(found)
            elif text.startswith(_ESCAPED):
                holder.string_value = text[1:]

    def _found(self, name: str, path: tuple[str, str, str]) -> struct_pb2.Value | None:
        node_id, _, pin = name.rpartition(".")
        address = node_id, pin
        node = self._nodes.get(node_id)
        if address in self._open:
            round_trip = " → ".join(quoted(".".join(step)) for step in (*self._open, address))
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_CYCLE, f"These constants refer to each other: {round_trip}.", *path
            )
        elif node is not None and is_constant(node) and pin in node.outputs.fields:
            return self._copy(address, path)
        else:
            known = [f"{node.id}.{pin}" for node in self._nodes.values() for pin in node.outputs.fields]
            self._draft.wrong(
                flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM,
                f"`${{{name[:80]}}}` refers to no constant of this flow.{among(name, known)}",
                *path,
            )
        return None

    def _copy(self, address: tuple[str, str], path: tuple[str, str, str]) -> struct_pb2.Value | None:
        copy = struct_pb2.Value()
        if len(self._open) < _MAX_DEPTH:
            copy.CopyFrom(self.constant(address))
        self._bytes += copy.ByteSize()
        # A few constants that refer to each other twice would fill any memory.
        if len(self._open) < _MAX_DEPTH and self._bytes <= _MAX_BYTES:
            return copy
        self._draft.wrong(
            flow_pb2.FLOW_ISSUE_CODE_INVALID_PARAM,
            f"References lead through more than {_MAX_DEPTH} constants, or to more than {_MAX_BYTES} bytes of them.",
            *path,
        )
        return None
