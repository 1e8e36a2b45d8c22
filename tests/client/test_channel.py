from __future__ import annotations

import grpc

from mediamesh.client.channel import error_of
from mediamesh.wire.errors import NotFound


def test_a_failure_whose_status_nobody_can_read_is_what_it_says_beside_it() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff"))
    failure = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "Gone.")
    error = error_of(failure)
    assert type(error) is NotFound
    assert error.text == "Gone."
