from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import server_process

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

# The start, 200 chunks of which every tenth is three bytes of a picture, and the end.
SEQUENCES = list(range(1, 203))
VALUES = [str(number) if number % 10 else f"0,255,{number}" for number in range(1, 201)]


def check(seen: dict[str, Any]) -> None:
    """Check that nothing is lost and nothing comes twice, on any edge."""
    assert seen["published"] == {"acknowledged": 202, "epoch": 1, "dropped": 0}
    assert seen["read"] == {"sequences": SEQUENCES, "values": VALUES}
    assert (seen["sourced"]["sequences"], seen["sourced"]["values"]) == (SEQUENCES, VALUES)
    assert seen["again"] == 202
    assert seen["kept"] == {"last": 202, "state": 2, "reason": "enough"}
    assert seen["watched"] == ["streamAvailable", "streamComplete"]
    assert seen["refused"] == "PERMISSION_DENIED"


async def test_a_page_publishes_and_reads_a_stream(drive, mesh) -> None:
    seen = await drive("streams.mjs")

    check(seen)
    assert seen["wsUrl"].startswith(f"ws://{mesh.door}/api/v1/streams/")
    assert seen["sourced"]["opens"] == 1
    assert seen["complaints"] == []


async def test_a_page_publishes_and_reads_a_stream_whose_server_is_killed_meanwhile(drive, mesh) -> None:
    seen = await drive("streams.mjs", str(server_process(mesh, "streams").pid))

    check(seen)
    assert seen["sourced"]["opens"] == 2
