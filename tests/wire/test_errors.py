from __future__ import annotations

import grpc
import pytest
from google.rpc import status_pb2

from mediamesh.api.errors.v1.error_reason_pb2 import ErrorReason
from mediamesh.wire import errors
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MeshError, NotFound, Overloaded

KINDS = [getattr(errors, name) for name in errors.__all__ if name != "DOMAIN"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_comes_back_from_its_own_status(kind) -> None:
    error = MeshError.from_status(kind("A sentence.", queue="q").to_status())
    assert type(error) is kind
    assert (error.text, error.metadata) == ("A sentence.", {"queue": "q"})


def test_every_reason_of_the_contract_has_a_class() -> None:
    assert {kind.reason for kind in KINDS} == set(ErrorReason.values()) - {0}


def test_violations_and_numbers_survive_the_wire() -> None:
    error = MeshError.from_status(MediaTooLarge.of_field("chunk.data", "at most 3 bytes", limit=3).to_status())
    assert error.number == "E1011"
    assert error.violations == [("chunk.data", "at most 3 bytes")]
    assert isinstance(error, InvalidRequest)


def test_the_time_to_try_again_survives_the_wire() -> None:
    error = MeshError.from_status(Overloaded.retry("Full.", 0.25).to_status())
    assert error.retry_after == 0.25


def test_a_status_of_another_system_becomes_the_nearest_class() -> None:
    assert type(MeshError.from_status(status_pb2.Status(code=5, message="gone"))) is NotFound
    unknown = MeshError.from_status(status_pb2.Status(code=2, message="?"))
    assert type(unknown) is MeshError
    assert unknown.code is grpc.StatusCode.INTERNAL
