"""A node whose agent is away, or has too much to do, is tried again as its flow says."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2

from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.orchestrator.execution.retry import Retries, is_passing
from mediamesh.wire.errors import AgentFailed, DeadlineExceeded, MeshError, Overloaded, StreamInterrupted, Unavailable
from tests.orchestrator.conftest import orchestrating, serving_agents
from tests.orchestrator.flow_texts import flow

SUCCEEDED = execution_pb2.EXECUTION_STATE_SUCCEEDED
DEFAULT = Retries(attempts=3, initial_seconds=1, longest_seconds=5)
GONE = Unavailable("Gone.")


def node(**policy):
    return flow_pb2.FlowNode(id="a", type="t.t", retry=flow_pb2.RetryPolicy(**policy))


def seconds(whole):
    return duration_pb2.Duration(seconds=whole)


async def events_of(mesh, source):
    return [event async for event in mesh.flows.run(source)]


def of_kind(events, kind):
    return [event for event in events if event.WhichOneof("event") == kind]


def test_a_pause_doubles_up_to_the_longest_with_jitter_of_a_half() -> None:
    for failures, most in ((1, 1), (2, 2)):
        pauses = [DEFAULT.pause(failures, GONE) for _ in range(200)]
        assert all(pause is not None and most / 2 <= pause <= most for pause in pauses)
        assert len(set(pauses)) > 100
    many = Retries(attempts=100_000, initial_seconds=1, longest_seconds=5, multiplier=10)
    pause = many.pause(50_000, GONE)
    assert pause is not None
    assert 2.5 <= pause <= 5


def test_the_last_try_and_an_error_that_stays_are_not_tried_again() -> None:
    assert DEFAULT.pause(3, GONE) is None
    for error in (AgentFailed("No."), DeadlineExceeded("Late."), MeshError("Broken.")):
        assert not is_passing(error)
        assert DEFAULT.pause(1, error) is None
    assert is_passing(StreamInterrupted("Broke off."))


def test_a_server_at_its_limit_is_asked_again_when_it_says_and_as_long_as_there_is_time() -> None:
    error = Overloaded.retry("Full.", 7.0)
    assert DEFAULT.pause(1, error) == 7.0
    assert DEFAULT.pause(50, error) == 7.0
    assert DEFAULT.of(node(max_attempts=2)).pause(2, error) is None


def test_a_limit_of_which_nobody_says_when_it_passes_is_tried_as_often_as_any_failure() -> None:
    error = Overloaded("SERVER: Received message larger than max (5000000 vs. 4194304)")
    assert DEFAULT.pause(2, error) is not None
    assert DEFAULT.pause(3, error) is None


def test_what_the_flow_says_counts_and_the_rest_is_as_the_server_has_it() -> None:
    assert DEFAULT.of(flow_pb2.FlowNode()) == DEFAULT
    policy = DEFAULT.of(
        node(max_attempts=5, initial_backoff=seconds(0), max_backoff=seconds(9), backoff_multiplier=3.0)
    )
    assert policy == Retries(attempts=5, initial_seconds=0, longest_seconds=9, multiplier=3, patient=False)
    assert policy.pause(4, GONE) == 0
    assert DEFAULT.of(node(max_attempts=1)).pause(1, GONE) is None


async def test_a_failed_try_is_told_before_the_next_one_starts(mesh) -> None:
    events = await events_of(mesh, flow("a test.flaky"))
    kinds = [event.WhichOneof("event") for event in events if event.node_id == "a"]
    assert kinds == ["node_started", "node_retry", "node_started", "node_output", "node_finished"]
    (retry,) = [event.node_retry for event in of_kind(events, "node_retry")]
    assert (retry.attempt, retry.error.message) == (1, "Just restarting.")
    assert 0.025 <= retry.pause.ToNanoseconds() / 1e9 <= 0.05
    assert (await mesh.flows.get(events[0].execution_id)).nodes[0].attempt == 2


async def test_a_flow_may_forbid_a_second_try(mesh, agents) -> None:
    events = await events_of(mesh, flow("a test.flaky, retries: 0"))
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_FAILED
    assert agents.attempts[events[0].execution_id] == [1]


async def test_an_agent_whose_server_takes_no_message_so_large_fails_with_this_reason(settings, agents) -> None:
    source = flow(
        f"text test.echo, outputs: {{text: {'x' * 5000}}}", "echo test.echo, timeout: 20", edges="text.text>echo.text"
    )
    async with (
        serving_agents(agents, max_message_bytes=4096) as address,
        orchestrating(settings(agent_addresses=[address])) as mesh,
    ):
        events = await events_of(mesh, source)
    assert len(of_kind(events, "node_retry")) == 1
    (failed,) = of_kind(events, "node_failed")
    assert "larger than max" in failed.node_failed.error.message


@pytest.mark.parametrize("how", ["early", "late"])
async def test_a_reader_of_a_stream_that_is_refused_gets_all_of_it_at_another_try(mesh, agents, how) -> None:
    source = flow(
        "make test.producer, params: {count: 30}",
        f"count test.refusing, params: {{times: 4, how: {how}}}",
        edges="make.stream>count.stream",
    )
    events = await events_of(mesh, source)
    assert events[-1].execution_finished.state == SUCCEEDED
    assert agents.tries[events[0].execution_id, "count"] == [1, 2, 3, 4, 5]
    (count,) = of_kind(events, "node_output")[-1:]
    # The last try reads one itself before it counts.
    assert count.node_output.value.number == (29 if how == "late" else 30)
