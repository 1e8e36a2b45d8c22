"""What a plugin is told of the contract: descriptors with their comments, rules and addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

__all__ = ["Contract", "Route", "run"]

_FILES, _SERVICES, _MESSAGES, _ENUMS, _NESTED, _FIELDS, _METHODS = 0, 6, 4, 5, 3, 2, 2
_NESTED_ENUMS = 4
_VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Route:
    """One address of a method.

    Attributes:
        verb: ``get`` and the like.
        path: With fields in braces.
        body: The field that the body is, ``*`` for the whole message, empty for none.
    """

    verb: str
    path: str
    body: str


@dataclass(frozen=True)
class Contract:
    """All files of one request, and what is said about each thing in them."""

    request: CodeGeneratorRequest
    comments: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _pool(self) -> descriptor_pool.DescriptorPool:
        pool = descriptor_pool.DescriptorPool()
        for file in self.request.proto_file:
            pool.Add(file)
        return pool

    def files(self) -> Iterator[FileDescriptor]:
        """Yield the files to generate for, by name, having read the comments of all."""
        wanted = set(self.request.file_to_generate)
        for proto in self.request.proto_file:
            if proto.name in wanted:
                self._read_comments(proto)
        for name in sorted(wanted):
            yield self._pool.FindFileByName(name)

    def comment(self, thing: Any) -> str:
        """Return what the contract says about a message, field, enum, value, service or method."""
        return self.comments.get(_full_name(thing), "")

    def extensions(self, thing: Any) -> Mapping[str, Any]:
        """Return the options of a thing that are extensions, such as ``buf.validate.field``, as JSON has them."""
        options = thing.GetOptions()
        # Of the pool's own class: the one that made the descriptor knows no extensions.
        kind = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(options.DESCRIPTOR.full_name))
        known: Message = kind.FromString(options.SerializeToString())
        return {
            extension.full_name: MessageToDict(value, preserving_proto_field_name=True)
            for extension, value in known.ListFields()
            if extension.is_extension and isinstance(value, Message)
        }

    def routes(self, method: MethodDescriptor) -> list[Route]:
        """Return the addresses of a method over REST."""
        rule = self.extensions(method).get("google.api.http")
        if not rule:
            return []
        return [
            Route(verb, one[verb], one.get("body", ""))
            for one in (rule, *rule.get("additional_bindings", ()))
            for verb in _VERBS
            if verb in one
        ]

    def _read_comments(self, proto: Any) -> None:
        said = {tuple(place.path): _text(place.leading_comments) for place in proto.source_code_info.location}

        def note(name: str, path: tuple[int, ...]) -> None:
            self.comments[name] = said.get(path, "")

        def message(one: Any, name: str, path: tuple[int, ...]) -> None:
            note(name, path)
            for index, each in enumerate(one.field):
                note(f"{name}.{each.name}", (*path, _FIELDS, index))
            for index, each in enumerate(one.nested_type):
                message(each, f"{name}.{each.name}", (*path, _NESTED, index))
            for index, each in enumerate(one.enum_type):
                enum(each, f"{name}.{each.name}", (*path, _NESTED_ENUMS, index))

        def enum(one: Any, name: str, path: tuple[int, ...]) -> None:
            note(name, path)
            for index, each in enumerate(one.value):
                note(f"{name}/{each.name}", (*path, _FIELDS, index))

        for index, one in enumerate(proto.service):
            note(f"{proto.package}.{one.name}", (_SERVICES, index))
            for number, each in enumerate(one.method):
                note(f"{proto.package}.{one.name}.{each.name}", (_SERVICES, index, _METHODS, number))
        for index, one in enumerate(proto.message_type):
            message(one, f"{proto.package}.{one.name}", (_MESSAGES, index))
        for index, one in enumerate(proto.enum_type):
            enum(one, f"{proto.package}.{one.name}", (_ENUMS, index))


def run(generate: Callable[[Contract], Iterator[tuple[str, str]]]) -> None:
    """Answer one request of the plugin protocol on stdin with the files, name and text, that a function yields."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    for name, content in generate(Contract(request)):
        response.file.add(name=name, content=content)
    sys.stdout.buffer.write(response.SerializeToString())


def _full_name(thing: Any) -> str:
    # Values of an enum are siblings of it by name; here they belong to it.
    return f"{thing.type.full_name}/{thing.name}" if hasattr(thing, "number") and _is_value(thing) else thing.full_name


def _is_value(thing: Any) -> bool:
    return isinstance(getattr(thing, "type", None), EnumDescriptor)


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ") for line in comment.strip("\n").splitlines()).strip()


def messages_of(file: FileDescriptor) -> Iterator[Descriptor]:
    """Yield all messages of a file in their order, nested ones after what they are in; maps' entries are none."""

    def walk(message: Descriptor) -> Iterator[Descriptor]:
        if not message.GetOptions().map_entry:
            yield message
            for nested in message.nested_types:
                yield from walk(nested)

    for message in file.message_types_by_name.values():
        yield from walk(message)


def enums_of(file: FileDescriptor) -> Iterator[EnumDescriptor]:
    """Yield all enums of a file."""
    yield from file.enum_types_by_name.values()
    for message in messages_of(file):
        yield from message.enum_types
