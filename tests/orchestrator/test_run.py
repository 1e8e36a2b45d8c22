from __future__ import annotations

from flow_texts import flow

from mediamesh.api.flow.v1 import execution_pb2


async def events_of(mesh, source, inputs=None, **options):
    return [event async for event in mesh.flows.run(source, inputs, **options)]


def kinds(events, node_id):
    return [event.WhichOneof("event") for event in events if event.node_id == node_id]


async def test_a_flow_runs_and_its_events_have_no_gaps(mesh) -> None:
    source = flow(
        "say test.echo, outputs: {text: hello}", "again test.echo, params: {suffix: '!'}", "show ui.stream-console",
        edges="say.text>again.text again.text>show.input",
    )  # fmt: skip
    events = await events_of(mesh, source)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].HasField("execution_started")
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED
    assert kinds(events, "again") == ["node_started", "node_progress", "node_output", "node_finished"]
    shown = [event.node_output.value for event in events if event.node_id == "show" and event.HasField("node_output")]
    assert [value.text for value in shown] == ["hello!"]
