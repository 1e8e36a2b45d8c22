"""The description of the REST edge, made from the contract."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from google.api import annotations_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator

from mediamesh.kit.reflection import contract

FILE = Path(__file__).parents[2] / "generated/openapi/openapi.json"


@pytest.fixture(scope="module")
def description():
    return json.loads(FILE.read_text())


def test_it_is_one(description) -> None:
    OpenAPIV31SpecValidator(description).validate()


def test_it_has_every_address_of_the_contract_and_no_other(description) -> None:
    wanted = set()
    for file in contract().file:
        for service in file.service:
            for method in service.method:
                rule: Any = method.options.Extensions[cast("Any", annotations_pb2.http)]
                for one in (rule, *rule.additional_bindings):
                    if verb := one.WhichOneof("pattern"):
                        wanted.add((verb, re.sub(r"=[^}]*}", "}", getattr(one, verb))))
    told = {(verb, path) for path, verbs in description["paths"].items() for verb in verbs}
    assert told == wanted
    assert ("post", "/v1/executions") in told


def test_everything_in_it_says_what_it_is(description) -> None:
    for path, verbs in description["paths"].items():
        for verb, operation in verbs.items():
            assert operation["summary"], (verb, path)
            assert all(parameter.get("description") for parameter in operation.get("parameters", ())), (verb, path)


def test_bodies_are_the_json_form_of_the_messages(description) -> None:
    execution = description["components"]["schemas"]["mediamesh.api.flow.v1.Execution"]["properties"]
    assert execution["lastSequence"]["type"] == "string"  # 64 bits do not fit a number of JSON
    assert execution["createTime"]["format"] == "date-time"
    assert execution["flow"]["$ref"].endswith("flow.v1.Flow")
    assert execution["nodes"]["type"] == "array"
    asked = description["paths"]["/v1/executions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["$ref"].endswith("StartFlowRequest")
