from __future__ import annotations

import base64

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from mediamesh.api.errors.v1.error_reason_pb2 import ErrorReason
from mediamesh.wire import errors
from mediamesh.wire.errors import InvalidRequest, MediaTooLarge, MeshError, NotFound, Overloaded
from mediamesh.wire.status_json import status_from_object, status_object

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


def test_a_text_that_utf_8_cannot_carry_is_an_error_like_any_other() -> None:
    error = MeshError.from_status(InvalidRequest.of_field("a.\ud800", "is not \ud83dé", key="\udfff").to_status())
    assert error.text == "a.\\ud800: is not \\ud83dé"
    assert error.violations == [("a.\\ud800", "is not \\ud83dé")]
    assert error.metadata == {"key": "\\udfff"}
    assert str(NotFound("\ud800")) == "\\ud800"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("google.rpc.ErrorInfo", b"\xff"), ("google.rpc.RetryInfo", b"\xff"), ("else.where.Detail", b"\x0a\x01a")],
)
def test_a_detail_that_nobody_can_read_stays_as_it_is(kind, value) -> None:
    status = status_pb2.Status(code=5, message="gone")
    status.details.add(type_url=f"type.googleapis.com/{kind}", value=value)
    again = MeshError.from_status(status).to_status()
    assert list(again.details)[1:] == list(status.details)
    spelled = status_object(again)
    assert spelled["details"] == [{"@type": f"type.googleapis.com/{kind}", "bytes": base64.b64encode(value).decode()}]
    assert status_from_object(spelled) == again


def test_a_time_to_try_again_beyond_all_times_is_a_number() -> None:
    status = Overloaded.retry("Full.", 1).to_status()
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = 2**62
    status.details[1].Pack(retry)
    assert MeshError.from_status(status).retry_after == 2.0**62
    assert "bytes" in status_object(status)["details"][0]


def test_a_status_of_another_system_becomes_the_nearest_class() -> None:
    assert type(MeshError.from_status(status_pb2.Status(code=5, message="gone"))) is NotFound
    unknown = MeshError.from_status(status_pb2.Status(code=2, message="?"))
    assert type(unknown) is MeshError
    assert unknown.code is grpc.StatusCode.INTERNAL
