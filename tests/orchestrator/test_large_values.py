"""Values larger than an event: who gives one is told, and who waits for it does not wait on."""

from __future__ import annotations

import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.wire.errors import AgentFailed, MeshError
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow


@pytest.fixture(scope="module")
async def small(settings):
    """Return an orchestrator whose events are small."""
    async with orchestrating(settings(max_event_bytes=100_000)) as running:
        yield running


async def test_who_waits_for_an_output_that_is_too_large_is_skipped(small) -> None:
    source = flow("bad test.wrong, params: {how: large}", "after test.echo", edges="bad.text>after.text")
    events = {event.WhichOneof("event"): event async for event in small.flows.run(source, timeout=2)}
    assert isinstance(MeshError.from_status(events["node_failed"].node_failed.error), AgentFailed)
    assert events["node_skipped"].node_skipped.cause_node_id == "bad"
    finished = events["execution_finished"].execution_finished
    assert finished.state == execution_pb2.EXECUTION_STATE_FAILED
    assert finished.error.message.startswith("The node `bad` failed: An output of 10000")
