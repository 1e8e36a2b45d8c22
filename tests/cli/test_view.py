from __future__ import annotations

from google.protobuf import json_format
from google.rpc import status_pb2
from rich.console import Console

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.cli.view import RunView, line


def event(sequence: int, node: str = "", **arm) -> execution_pb2.ExecutionEvent:
    return execution_pb2.ExecutionEvent(sequence=sequence, execution_id="x", node_id=node, **arm)


def started() -> execution_pb2.ExecutionEvent:
    first = event(1, execution_started=execution_pb2.ExecutionStarted())
    for name in ("good", "bad", "after"):
        first.execution_started.flow.nodes.add(id=name, type=f"test.{name}")
    return first


def labelled() -> execution_pb2.ExecutionEvent:
    result = event(3, "good")
    result.node_output.pin = "classification"
    entries = '[{"label": "tabby", "index": 281, "probability": 0.75}]'
    json_format.Parse(entries, result.node_output.value.json)
    return result


def drawn(renderable) -> str:
    console = Console(width=120, record=True, force_terminal=False)
    console.print(renderable)
    return console.export_text()


def test_nodes_are_drawn_with_their_states() -> None:
    view = RunView()
    view.see(started())
    view.see(event(2, "good", node_started=execution_pb2.NodeStarted(agent_id="test.good")))
    assert "·  bad" in drawn(view)
    view.see(event(3, "good", node_finished=execution_pb2.NodeFinished()))
    view.see(event(4, "bad", node_failed=execution_pb2.NodeFailed(error=status_pb2.Status(message="no room"))))
    view.see(event(5, "after", node_skipped=execution_pb2.NodeSkipped(cause_node_id="bad")))
    text = drawn(view)
    assert "✔  good" in text
    assert "no room" in text
    assert "as bad failed" in text


def test_a_stream_is_shown_with_the_id_under_which_it_can_be_read() -> None:
    view = RunView()
    view.see(started())
    named = {"stream_id": "01stream", "pin": "words"}
    available = event(2, "good", stream_available=execution_pb2.StreamAvailable(**named))
    view.see(available)
    assert "≋  good.words" in drawn(view)
    view.see(event(3, "good", stream_complete=execution_pb2.StreamComplete(**named)))
    assert "01stream" in drawn(view)
    assert "01stream" in line(available)


def test_labels_are_bars_with_shares() -> None:
    view = RunView()
    view.see(started())
    view.see(labelled())
    text = drawn(view.results())
    assert "tabby" in text
    assert "75.0%" in text


def test_an_event_is_one_short_line() -> None:
    first = line(started())
    assert first.split() == ["1", "execution_started"]
    assert line(labelled()).startswith("   3 node_output         good")
    assert "\n" not in line(labelled())
