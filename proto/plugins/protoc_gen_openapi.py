"""Describe the REST edge in OpenAPI 3.1: what Envoy's transcoder makes of the ``google.api.http`` annotations.

Bodies are the JSON form of protobuf, https://protobuf.dev/programming-guides/json: names in lowerCamelCase, 64-bit
integers as text, bytes as base64, enums by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from contract import Contract, Route, run

Schema = dict[str, Any]

_PATH_FIELD = re.compile(r"\{([a-z_0-9.]+)(?:=[^}]*)?\}")
_HTTP_BODY = "google.api.HttpBody"
_STATUS = "google.rpc.Status"
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_ANY: Schema = {"description": "Any JSON value."}
# What JSON has in place of these messages.
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": _ANY,
    "google.protobuf.ListValue": {"type": "array", "items": _ANY},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
}


def generate(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield the description."""
    yield "openapi.json", json.dumps(_Description(contract).whole(), indent=1, ensure_ascii=False) + "\n"


class _Description:
    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._schemas: dict[str, Schema] = {}

    def whole(self) -> Schema:
        paths: dict[str, Schema] = {}
        tags = []
        for file in self._contract.files():
            for service in file.services_by_name.values():
                routed = [(method, routes) for method in service.methods if (routes := self._contract.routes(method))]
                if routed:
                    tags.append({"name": service.name, "description": self._contract.comment(service)})
                for method, routes in routed:
                    for number, route in enumerate(routes):
                        path = _PATH_FIELD.sub(r"{\1}", route.path)
                        paths.setdefault(path, {})[route.verb] = self._operation(method, route, number)
        self._schemas.setdefault(_STATUS, _status())
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "mediamesh",
                "version": "v1",
                "description": "The REST edge of the mesh, at its door. Made from `proto/`; change it there.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "http://127.0.0.1:8080", "description": "`mediamesh up`"}],
            "tags": tags,
            "paths": dict(sorted(paths.items())),
            "components": {"schemas": dict(sorted(self._schemas.items()))},
        }

    def _operation(self, method: MethodDescriptor, route: Route, number: int) -> Schema:
        said = self._contract.comment(method)
        summary, _, rest = said.replace("\n", " ").partition(". ")
        operation: Schema = {
            "operationId": f"{method.containing_service.name}_{method.name}" + (f"_{number + 1}" if number else ""),
            "tags": [method.containing_service.name],
            "summary": summary.rstrip("."),
            **({"description": rest} if rest else {}),
        }
        if parameters := self._parameters(method, route):
            operation["parameters"] = parameters
        if route.body:
            operation["requestBody"] = {"required": True, "content": self._body(method, route)}
        operation["responses"] = {
            "200": {"description": "What was asked for.", "content": self._answer(method)},
            "default": {
                "description": "Why it could not be done; its details carry the reason, its number, and the fields.",
                "content": {"application/json": {"schema": _reference(_STATUS)}},
            },
        }
        return operation

    def _parameters(self, method: MethodDescriptor, route: Route) -> list[Schema]:
        in_path = _PATH_FIELD.findall(route.path)
        fields = method.input_type.fields_by_name
        parameters = [self._parameter(fields[name], "path") for name in in_path]
        if route.body != "*":
            parameters += [
                self._parameter(field, "query")
                for name, field in fields.items()
                if name not in {*in_path, route.body} and field.message_type is None
            ]
        return parameters

    def _parameter(self, field: FieldDescriptor, place: str) -> Schema:
        said = self._contract.comment(field).replace("\n", " ")
        return {
            "name": field.name,
            "in": place,
            **({"required": True} if place == "path" else {}),
            **({"description": said} if said else {}),
            "schema": self._field(field),
        }

    def _body(self, method: MethodDescriptor, route: Route) -> Schema:
        body = method.input_type if route.body == "*" else method.input_type.fields_by_name[route.body].message_type
        if body is not None and body.full_name == _HTTP_BODY:
            return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
        schema = self._message(body) if body is not None else self._field(method.input_type.fields_by_name[route.body])
        return {"application/json": {"schema": schema}}

    def _answer(self, method: MethodDescriptor) -> Schema:
        if method.output_type.full_name == _HTTP_BODY:
            kind = "text/event-stream" if method.server_streaming else "*/*"
            return {kind: {"schema": {"type": "string"}}}
        return {"application/json": {"schema": self._message(method.output_type)}}

    def _field(self, field: FieldDescriptor) -> Schema:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._one(inner.fields_by_name["value"])}
        one = self._one(field)
        return {"type": "array", "items": one} if field.is_repeated else one

    def _one(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self._message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return _SCALARS[field.cpp_type]

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        if enum.full_name not in self._schemas:
            self._schemas[enum.full_name] = {
                "type": "string",
                "enum": [value.name for value in enum.values],
                "description": "\n".join(
                    [self._contract.comment(enum), *(f"- {v.name}: {self._contract.comment(v)}" for v in enum.values)]
                ),
            }
        return _reference(enum.full_name)

    def _message(self, message: Descriptor) -> Schema:
        if message.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[message.full_name]
        if message.full_name == _STATUS:
            self._schemas[_STATUS] = _status()
        if message.full_name not in self._schemas:
            # First, as messages may hold themselves.
            schema = self._schemas[message.full_name] = {"type": "object"}
            if said := self._contract.comment(message):
                schema["description"] = said
            if message.fields:
                schema["properties"] = {field.json_name: self._property(field) for field in message.fields}
        return _reference(message.full_name)

    def _property(self, field: FieldDescriptor) -> Schema:
        said = self._contract.comment(field).replace("\n", " ")
        return {**({"description": said} if said else {}), **self._field(field)}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _status() -> Schema:
    return {
        "type": "object",
        "description": "An error, https://cloud.google.com/apis/design/errors.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "The code of gRPC."},
            "message": {"type": "string", "description": "One sentence for people."},
            "details": {"type": "array", "items": _WELL_KNOWN["google.protobuf.Any"]},
        },
    }


if __name__ == "__main__":
    run(generate)
