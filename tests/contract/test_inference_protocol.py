"""Our inference protocol is Triton's, down to the last field.

The golden file holds what the descriptors in tritonclient's wheel say. They
cannot be compared directly: a process that loads them beside ours registers
every symbol twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from mediamesh.api.inference.v2 import inference_service_pb2, model_config_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import (
        Descriptor,
        EnumDescriptor,
        FieldDescriptor,
        FileDescriptor,
        MethodDescriptor,
    )

Facts: TypeAlias = dict[str, dict[str, Any]]

GOLDEN = Path(__file__).with_name("golden") / "triton_inference.json"
FILES = (model_config_pb2.DESCRIPTOR, inference_service_pb2.DESCRIPTOR)


def describe(files: tuple[FileDescriptor, ...]) -> Facts:
    """Reduce files to what the wire, JSON and text formats depend on."""
    tops = [m for file in files for m in file.message_types_by_name.values()]
    messages = [m for top in tops for m in walk(top)]
    enums = [e for file in files for e in file.enum_types_by_name.values()]
    enums += [e for message in messages for e in message.enum_types]
    services = [s for file in files for s in file.services_by_name.values()]
    return {
        "messages": {m.full_name: {f.name: field_facts(f) for f in m.fields} for m in messages},
        "map_entries": {m.full_name: True for m in messages if m.GetOptions().map_entry},
        "enums": {e.full_name: enum_facts(e) for e in enums},
        "methods": {m.full_name: method_facts(m) for s in services for m in s.methods},
    }


def walk(message: Descriptor) -> Iterator[Descriptor]:
    """Yield a message and all those nested in it."""
    yield message
    for nested in message.nested_types:
        yield from walk(nested)


def field_facts(field: FieldDescriptor) -> list[int | str]:
    """Return number, type, label, type name, oneof and JSON name of a field."""
    kind = FieldDescriptorProto.Type.DESCRIPTOR.values_by_number[field.type].name
    named_type = field.message_type or field.enum_type
    return [
        field.number,
        kind.removeprefix("TYPE_").lower(),
        label(field),
        named_type.full_name if named_type else "",
        field.containing_oneof.name if field.containing_oneof else "",
        field.json_name,
    ]


def label(field: FieldDescriptor) -> str:
    """Name the cardinality of a field, and whether it tracks presence or is packed."""
    if field.is_repeated:
        return "packed" if field.is_packed else "repeated"
    return "present" if field.has_presence else "implicit"


def enum_facts(enum: EnumDescriptor) -> dict[str, int]:
    """Return the numbers of an enum's values by name."""
    return {value.name: value.number for value in enum.values}


def method_facts(method: MethodDescriptor) -> list[str | bool]:
    """Return request, response, and which of them are streams."""
    return [
        method.input_type.full_name,
        method.output_type.full_name,
        method.client_streaming,
        method.server_streaming,
    ]


@pytest.fixture(scope="module")
def golden() -> Facts:
    """Triton's protocol as its own client defines it."""
    facts: Facts = json.loads(GOLDEN.read_text())
    return facts


@pytest.mark.parametrize("part", ["messages", "map_entries", "enums", "methods"])
def test_protocol_equals_tritons(golden: Facts, part: str) -> None:
    assert describe(FILES)[part] == golden[part]


def test_service_path_is_the_one_triton_clients_call(golden: Facts) -> None:
    service = inference_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == "inference.GRPCInferenceService"
    assert {method.full_name for method in service.methods} == set(golden["methods"])


def test_a_request_encodes_to_the_bytes_that_triton_expects() -> None:
    request = inference_service_pb2.ModelInferRequest(model_name="m", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(bytes(8))
    assert request.SerializeToString() == bytes.fromhex(
        "0a016d 1a0137"  # model_name, id
        "2a0d 0a0178 120446503332 1a020102"  # inputs: name, datatype, packed shape
        "3a08 0000000000000000",  # raw_input_contents
    )
