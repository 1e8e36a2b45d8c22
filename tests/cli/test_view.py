from __future__ import annotations

import json

import pytest
from google.protobuf import json_format, struct_pb2
from google.rpc import status_pb2
from rich.console import Console

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Final, Snapshot, TextContent
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


def test_a_node_that_is_tried_again_says_why_until_it_runs() -> None:
    view = RunView()
    view.see(started())
    retry = execution_pb2.NodeRetry(attempt=1, error=status_pb2.Status(message="no room"))
    retry.pause.FromMilliseconds(250)
    view.see(event(2, "good", node_retry=retry))
    assert "again in 250 ms: no room" in drawn(view)
    view.see(event(3, "good", node_started=execution_pb2.NodeStarted(agent_id="test.good", attempt=2)))
    assert "no room" not in drawn(view)
    view.see(event(4, "good", node_finished=execution_pb2.NodeFinished(cached=True)))
    assert "0 ms from the cache" in drawn(view)


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


def test_tables_are_drawn_and_text_keeps_its_lines() -> None:
    view = RunView()
    view.see(started())
    tables = event(2, "good")
    tables.node_output.pin = "tables"
    rows = [["Item", "Count"], ["wire [red]", "12"], ["oil"]]
    json_format.Parse(json.dumps([{"page": 1, "rows": rows}]), tables.node_output.value.json)
    view.see(tables)
    text = event(3, "good")
    text.node_output.pin = "text"
    text.node_output.value.text = "first line\nsecond\tline"
    view.see(text)
    result = drawn(view.results())
    assert [
        word for word in ("│ Item", "wire [red] │ 12", "│ oil", "  first line ", "  second") if word not in result
    ] == []


def test_streams_are_shown_once_when_the_run_is_over() -> None:
    view = shown(words("four score"))
    assert "four score" in drawn(view)
    view.see(event(9, execution_finished=execution_pb2.ExecutionFinished()))
    assert "four score" not in drawn(view)
    assert "four score" in drawn(view.results())


def test_an_event_is_one_short_line() -> None:
    first = line(started())
    assert first.split() == ["1", "execution_started"]
    assert line(labelled()).startswith("   3 node_output         good")
    assert "\n" not in line(labelled())


def words(text: str, *, segment: int = 0, end: float = 2.0, final: bool = True) -> dict[str, object]:
    return {"type": "transcript", "segment": segment, "start": 0.5, "end": end, "final": final, "text": text}


def frame(time: float, *labels: str, dropped: int = 0) -> dict[str, object]:
    objects = [{"label": label, "score": 0.81, "box": [10, 20, 30, 40]} for label in labels]
    return {"type": "frame", "time": time, "index": time * 30, "objects": objects, "dropped": dropped}


def combined(result: dict[str, object], *, late: bool = False) -> dict[str, object]:
    return {"type": "combined", "time": 1.0, "source": "video", "late": late, "result": result}


def snapshot(data) -> Chunk:
    return Chunk(snapshot=Snapshot(data=json_format.ParseDict(data, struct_pb2.Value())))


def shown(*chunks, kind: str = "ui.stream-viewer") -> RunView:
    """A view that has seen these chunks enter a node."""
    view = RunView()
    first = event(1, execution_started=execution_pb2.ExecutionStarted())
    first.execution_started.flow.nodes.add(id="viewer", type=kind)
    view.see(first)
    for number, chunk in enumerate(chunks, 2):
        view.see(entered(number, chunk if isinstance(chunk, Chunk) else snapshot(chunk)))
    return view


def entered(number: int, chunk: Chunk) -> execution_pb2.ExecutionEvent:
    result = event(number, "viewer")
    result.node_chunk.pin = "input"
    result.node_chunk.chunk.CopyFrom(chunk)
    return result


def test_a_transcript_grows_in_its_place() -> None:
    view = shown(words("four", final=False), words("four score", final=False), words("and", segment=1, final=False))
    text = drawn(view)
    assert "viewer.input" in text
    assert "four score" in text
    assert text.count("four") == 1
    assert "♪ 0.50-2.00 s and" in text


def test_the_newest_segments_are_seen_live_and_all_in_the_end() -> None:
    view = shown(*(words(f"segment {number}.", segment=number) for number in range(20)))
    assert "segment 13." not in drawn(view)
    assert "segment 14." in drawn(view)
    assert all(f"segment {number}." in drawn(view.results()) for number in range(20))


def test_the_newest_frame_is_seen_live_and_what_was_seen_on_the_whole_in_the_end() -> None:
    view = shown(frame(0.0, "person", "person"), frame(1.0, "person", "bicycle", dropped=3), frame(2.0))
    assert "▶ 2.00 s #60 nothing" in drawn(view)
    assert "person" not in drawn(view)
    text = drawn(view.results())
    assert "3 frames, 3 dropped" in text
    assert "person in 2 (up to 2)" in text
    assert "bicycle in 1 (up to 1)" in text


def test_a_frame_names_objects_with_their_places() -> None:
    assert "person 81% at 10,20 30x40" in drawn(shown(frame(1.0, "person")))
    assert "2 more" in drawn(shown(frame(1.0, *"abcdef")))
    activity = {"type": "frame", "time": 0, "activity": {"label": "walking", "score": 0.5}, "motion": 0.1}
    assert "walking 50%" in drawn(shown(activity))
    scene = {"type": "frame", "time": 0, "labels": [{"label": "street", "index": 1, "probability": 0.25}]}
    assert "street 25.0%" in drawn(shown(scene))


def test_a_combined_stream_shows_all_its_media_and_says_what_was_late() -> None:
    image = {"type": "image", "time": 0, "classification": [{"label": "tabby", "index": 281, "probability": 0.75}]}
    view = shown(*map(combined, (image, frame(0.5, "cat"), words("meow"))), combined(frame(0.25, "cat"), late=True))
    live = drawn(view)
    for part in ("▣ 0.00 s tabby 75.0%", "▶ 0.25 s", "cat 81%", "meow"):
        assert part in live
    assert "1 results were late" in drawn(view.results())


def test_pages_text_and_final_values_are_shown() -> None:
    page = {"type": "page", "page": 1, "pages": 3, "blocks": [{"text": "Invoice"}, {"text": "Total"}]}
    final = Chunk(final=Final(data=json_format.ParseDict({"answer": 42}, struct_pb2.Value())))
    text = drawn(shown(page, Chunk(content=TextContent(text="Hello, ")), Chunk(content=TextContent(text="you")), final))
    for part in ("▤ page 1 of 3, 2 lines Invoice / Total", "Hello, you", "'answer': 42"):
        assert part in text


ODD = [
    None,
    5,
    "text",
    [1],
    {},
    *({"type": kind} for kind in ("frame", "combined", "page", "transcript", "image")),
    {"type": "frame", "objects": [5, {"box": [1]}, {"box": "here"}]},
    {"type": "image", "classification": 7},
]


@pytest.mark.parametrize("data", ODD, ids=str)
def test_whatever_a_stream_carries_can_be_shown(data) -> None:
    view = shown(data, data)
    drawn(view)
    drawn(view.results())
    assert "\n" not in line(entered(2, snapshot(data)))


def test_what_media_says_does_not_move_the_cursor() -> None:
    view = shown(words("\x1b[2Jgone\x07"), Chunk(content=TextContent(text="\x1b]0;title\x07")))
    assert "\x1b" not in drawn(view)
    assert "\x1b" not in line(entered(2, snapshot(words("\x1b[2J"))))
    assert "gone" in drawn(view)


def test_what_agents_say_is_no_markup() -> None:
    view = RunView()
    view.see(started())
    view.see(event(2, "bad", node_failed=execution_pb2.NodeFailed(error=status_pb2.Status(message="no [/room] \x1b"))))
    assert "no [/room] \N{REPLACEMENT CHARACTER}" in drawn(view)


def test_streams_between_agents_are_not_shown() -> None:
    assert "four" not in drawn(shown(words("four"), kind="mediamesh.audio-transcriber"))


def test_a_chunk_is_one_line_that_says_what_was_found() -> None:
    assert line(entered(2, snapshot(combined(frame(1.5, "person"))))).endswith(
        "input ▶ 1.50 s #45 person 81% at 10,20 30x40"
    )
