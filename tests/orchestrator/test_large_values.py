"""Values larger than an event: who gives one is told, and who waits for it does not wait on."""

from __future__ import annotations

import pytest

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.wire.errors import AgentFailed, InvalidRequest, MeshError
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow


@pytest.fixture(scope="module")
async def small(settings):
    """Return an orchestrator whose events are small."""
    async with orchestrating(settings(max_event_bytes=100_000)) as running:
        yield running


async def test_who_waits_for_an_output_that_is_too_large_is_skipped(small) -> None:
    source = flow("bad test.wrong, params: {how: large}", "after test.echo", edges="bad.text>after.text")
    events = {event.WhichOneof("event"): event async for event in small.flows.run(source, timeout=10)}
    assert isinstance(MeshError.from_status(events["node_failed"].node_failed.error), AgentFailed)
    assert events["node_skipped"].node_skipped.cause_node_id == "bad"
    finished = events["execution_finished"].execution_finished
    assert finished.state == execution_pb2.EXECUTION_STATE_FAILED
    assert finished.error.message.startswith("The node `bad` failed: An output of 10000")


async def test_an_input_that_is_too_large_is_refused(small) -> None:
    source = flow("up ui.file-upload", "after test.echo", "show ui.stream-console",
                  edges="up.file>after.text after.text>show.input")  # fmt: skip
    with pytest.raises(InvalidRequest) as raised:
        await small.flows.start(source, {"up.file": value_pb2.Value(text="x" * 100_000)})
    field, text = "inputs['up.file']", "has 100004 bytes, and what is no media has 99488 at most"
    assert raised.value.violations == [(field, text)]
    largest = value_pb2.Value(text="x" * (99_488 - 4))
    events = [event async for event in small.flows.run(source, {"up.file": largest}, timeout=10)]
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
