"""A YAML document read into a message by the message's own description, with the line of every field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import yaml
from google.protobuf import duration_pb2, json_format, struct_pb2
from google.protobuf.descriptor import FieldDescriptor

from mediamesh.agent.units import parse_seconds, parse_size
from mediamesh.wire.json import short_name

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

__all__ = ["Document"]

_NULL = "tag:yaml.org,2002:null"
# Names that manifests use beside the fields' own.
_ALIASES = {"mimeType": "mime_types"}
_TYPES: dict[int, tuple[type, ...]] = {
    FieldDescriptor.CPPTYPE_STRING: (str,),
    FieldDescriptor.CPPTYPE_BOOL: (bool,),
    FieldDescriptor.CPPTYPE_DOUBLE: (int, float),
    FieldDescriptor.CPPTYPE_UINT32: (int,),
    FieldDescriptor.CPPTYPE_UINT64: (int,),
}
_WORDS = {str: "text (quote it)", bool: "true or false", int: "a whole number"}


class Document:
    """One YAML document, not read yet."""

    def __init__(self, loader: yaml.SafeLoader, root: yaml.Node | None) -> None:
        self._loader, self._root = loader, root
        # Of each field's path in the message: its line, and its name as the author wrote it.
        self._places: dict[str, tuple[int, str]] = {}
        self._problems: list[tuple[str, str]] = []

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the document in a text.

        Raises:
            yaml.YAMLError: it is not one YAML document.
        """
        loader = yaml.SafeLoader(text)
        return cls(loader, loader.get_single_node())

    def place(self, path: str) -> str:
        """Return ``line: path`` of a field of the message, both as the author sees them."""
        known = path
        while known and known not in self._places:
            known = _parent(known)
        written, step = "", path
        while step:
            parent = _parent(step)
            name = self._places.get(step, (0, ""))[1]
            written = (f".{name}" if name else step.removeprefix(parent)) + written
            step = parent
        return f"{self._places.get(known, (1, ''))[0]}: {written.lstrip('.')}"

    def read_into(self, message: Message) -> list[tuple[str, str]]:
        """Set the fields of the message; returns path and description of each fault."""
        self._message(self._root, message, "")
        return self._problems

    def _message(self, node: yaml.Node | None, message: Message, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._problems.append((path, "must be names with values"))
            return
        fields: dict[str, Any] = {}
        for known_field in message.DESCRIPTOR.fields:
            fields |= {known_field.name: known_field, known_field.json_name: known_field}
        fields |= {alias: fields[name] for alias, name in _ALIASES.items() if name in fields}
        seen: set[str] = set()
        for key, value in node.value:
            field = fields.get(key.value)
            where = f"{path}.{field.name if field else key.value}".lstrip(".")
            self._places[where] = key.start_mark.line + 1, str(key.value)
            if field is None:
                known = ", ".join(dict.fromkeys(field.json_name for field in fields.values()))
                self._problems.append((where, f"is not known; known are {known}"))
            elif field.name in seen:
                self._problems.append((where, "is there twice"))
            elif value.tag != _NULL:
                self._field(value, message, field, where)
            seen.add(field.name if field else "")

    def _field(self, node: yaml.Node, message: Message, field: FieldDescriptor, path: str) -> None:
        if not field.is_repeated:
            self._single(node, message, field, path)
            return
        items = _listed(node, field)
        if items is None:
            self._problems.append((path, "must be a list"))
            return
        target = getattr(message, field.name)
        for index, item in enumerate(items):
            where = f"{path}[{index}]"
            self._places[where] = item.start_mark.line + 1, ""
            if field.message_type is not None:
                self._message(item, target.add(), where)
            else:
                value = self._scalar(item, field, where)
                if value is not None:
                    target.append(value)

    def _single(self, node: yaml.Node, message: Message, field: FieldDescriptor, path: str) -> None:
        kind = field.message_type.full_name if field.message_type is not None else ""
        if kind == struct_pb2.Value.DESCRIPTOR.full_name:
            self._json(node, getattr(message, field.name), path)
        elif kind == duration_pb2.Duration.DESCRIPTOR.full_name:
            self._duration(node, getattr(message, field.name), path)
        elif kind:
            getattr(message, field.name).SetInParent()
            self._message(node, getattr(message, field.name), path)
        else:
            value = self._scalar(node, field, path)
            if value is not None:
                self._set(message, field, value, path)

    def _set(self, message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
        try:
            setattr(message, field.name, value)
        except ValueError:
            self._problems.append((path, f"{value} is out of range"))

    def _json(self, node: yaml.Node, target: struct_pb2.Value, path: str) -> None:
        try:
            json_format.ParseDict(self._loader.construct_object(node, deep=True), target)
        except (json_format.ParseError, yaml.YAMLError, TypeError) as error:
            self._problems.append((path, f"must be something that JSON can say: {error}"))

    def _duration(self, node: yaml.Node, target: duration_pb2.Duration, path: str) -> None:
        try:
            target.FromNanoseconds(round(parse_seconds(str(node.value)) * 1e9))
        except ValueError as error:
            self._problems.append((path, str(error)))

    def _scalar(self, node: yaml.Node, field: FieldDescriptor, path: str) -> Any:
        """Return the value, or None after noting what is wrong with it."""
        if not isinstance(node, yaml.ScalarNode):
            self._problems.append((path, "must be a single value"))
            return None
        if field.enum_type is not None:
            return self._enum(node, field, path)
        if field.name == "max_size_bytes":
            try:
                return parse_size(node.value)
            except ValueError as error:
                self._problems.append((path, str(error)))
                return None
        value = self._loader.construct_object(node)
        wanted = _TYPES[field.cpp_type]
        if isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool)):
            return value
        self._problems.append((path, f"must be {_WORDS[wanted[0]] if len(wanted) == 1 else 'a number'}"))
        return None

    def _enum(self, node: yaml.ScalarNode, field: FieldDescriptor, path: str) -> int | None:
        enum = cast("EnumDescriptor", field.enum_type)
        values = {short_name(enum, value.name): value.number for value in enum.values if value.number}
        if node.value not in values:
            self._problems.append((path, f"must be one of {', '.join(values)}; is {node.value!r}"))
        return values.get(node.value)


def _parent(path: str) -> str:
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def _listed(node: yaml.Node, field: FieldDescriptor) -> list[yaml.Node] | None:
    """Return the items of a list; media types may be one text with commas."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if field.name == "mime_types" and isinstance(node, yaml.ScalarNode):
        return [
            yaml.ScalarNode(node.tag, item.strip(), node.start_mark, node.end_mark) for item in node.value.split(",")
        ]
    return None
