from __future__ import annotations

import re
from pathlib import Path

from google.protobuf.descriptor_pool import DescriptorPool

from mediamesh.kit.reflection import contract, service_names

PROTOS = Path(__file__).parents[2] / "proto" / "mediamesh"


def test_every_service_of_the_contract_is_told() -> None:
    declared = set()
    for file in PROTOS.rglob("*.proto"):
        text = file.read_text()
        package = re.search(r"^package (\S+);", text, re.MULTILINE)
        assert package
        declared |= {f"{package[1]}.{name}" for name in re.findall(r"^service (\w+)", text, re.MULTILINE)}
    assert declared == {name for name in service_names() if not name.startswith("grpc.")}


def test_the_contract_stands_by_itself() -> None:
    pool = DescriptorPool()
    for file in contract().file:
        pool.Add(file)  # raises when an import is missing
    for name in service_names():
        if not name.startswith("grpc."):
            assert pool.FindServiceByName(name).methods
    assert pool.FindMessageTypeByName("google.rpc.BadRequest")
