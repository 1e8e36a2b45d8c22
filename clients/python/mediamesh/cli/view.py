"""What a run looks like in a terminal: nodes with their states while it goes on, then the values that came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mediamesh.cli.results import StreamView, clean, told
from mediamesh.wire.json import to_object

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.value_pb2 import Value
    from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent

__all__ = ["RunView", "line"]

_SHOWN = "ui."  # types of the nodes that are the client's, and what they get is shown
_MOST_TEXT = 4000  # characters of a text that is shown
_LABELLED = {"label", "probability"}
_SIGNS: dict[str, RenderableType] = {
    "pending": Text("·", style="dim"),
    "running": Spinner("dots", style="cyan"),
    "succeeded": Text("✔", style="green"),
    "failed": Text("✘", style="bold red"),
    "skipped": Text("○", style="yellow"),
    "cancelled": Text("■", style="yellow"),
}


class RunView:
    """Follows the events of one run and draws them."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._percent: dict[str, float] = {}
        self._outputs: dict[tuple[str, str], Value] = {}
        self._fed: set[tuple[str, str]] = set()
        self._uploads: dict[str, tuple[int, int]] = {}
        self._streams: dict[str, str] = {}
        self._shown: dict[str, StreamView] = {}
        self._complete: set[str] = set()
        self._over = False

    def uploaded(self, pin: str, sent: int, total: int) -> None:
        """Take note of how much of a file was sent, in bytes."""
        self._uploads[pin] = sent, total

    def see(self, event: ExecutionEvent) -> None:
        """Take note of an event."""
        node, kind = event.node_id, event.WhichOneof("event")
        match kind:
            case "execution_started":
                flow = event.execution_started.flow
                self._types = {node.id: node.type for node in flow.nodes}
                sources = (getattr(edge, "from") for edge in flow.edges)  # a keyword of Python
                self._fed = {(source.node_id, source.pin) for source in sources}
                self._states = dict.fromkeys(self._types, "pending")
            case "node_started":
                self._states[node] = "running"
                self._notes.pop(node, None)
                # What came of an earlier attempt does not count any more.
                self._shown = {name: shown for name, shown in self._shown.items() if name.partition(".")[0] != node}
            case "node_progress":
                self._percent[node] = event.node_progress.percent
                self._notes[node] = event.node_progress.message
            case "node_output":
                self._outputs[node, event.node_output.pin] = event.node_output.value
            case "node_chunk":
                if self._types.get(node, "").startswith(_SHOWN):
                    name = f"{node}.{event.node_chunk.pin}"
                    self._shown.setdefault(name, StreamView()).see(event.node_chunk.chunk)
            case "stream_available":
                self._streams[event.stream_available.stream_id] = f"{node}.{event.stream_available.pin}"
            case "stream_complete":
                self._complete.add(event.stream_complete.stream_id)
            case "execution_finished":
                self._over = True
            case _:
                self._settle(node, event)

    def _settle(self, node: str, event: ExecutionEvent) -> None:
        """Take note of how a try of a node ended."""
        match event.WhichOneof("event"):
            case "node_finished":
                cached = " from the cache" if event.node_finished.cached else ""
                self._states[node] = "succeeded"
                self._notes[node] = f"{event.node_finished.duration.ToMilliseconds()} ms{cached}"
            case "node_retry":
                retry = event.node_retry
                self._notes[node] = f"again in {retry.pause.ToMilliseconds()} ms: {retry.error.message}"
            case "node_failed":
                self._states[node] = "failed"
                self._notes[node] = event.node_failed.error.message
            case "node_skipped":
                self._states[node] = "skipped"
                self._notes[node] = f"as {event.node_skipped.cause_node_id} failed"
            case "node_cancelled":
                self._states[node] = "cancelled"

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for pin, (sent, total) in self._uploads.items():
            if not self._states:
                table.add_row("↑", pin, "upload", ProgressBar(total, sent, width=24), f"{sent / 1e6:.1f} MB")
        for node, state in self._states.items():
            bar = (
                ProgressBar(100, self._percent[node], width=24) if state == "running" and node in self._percent else ""
            )
            table.add_row(
                _SIGNS[state], node, Text(self._types[node], style="dim"), bar, Text(clean(self._notes.get(node)))
            )
        for stream_id, pin in self._streams.items():
            style = "dim" if stream_id in self._complete else "cyan"
            table.add_row(Text("≋", style=style), pin, Text("stream", style="dim"), "", stream_id)
        if self._over:  # results() shows all that came
            return table
        return Group(table, *self._titled({name: shown.live() for name, shown in self._shown.items()}))

    def results(self) -> RenderableType:
        """Return the values that entered no further node, and the streams that are shown, drawn for people."""
        ends = ((name, value) for name, value in self._outputs.items() if name not in self._fed)
        streams = self._titled({name: shown.result() for name, shown in self._shown.items()})
        return Group(*(_drawn(".".join(name), value) for name, value in ends), *streams)

    @staticmethod
    def _titled(parts: Mapping[str, RenderableType]) -> Iterator[RenderableType]:
        for name, part in parts.items():
            yield Text(name, style="bold")
            yield Padding(part, (0, 0, 0, 2))


def line(event: ExecutionEvent) -> str:
    """Return an event as one line of plain text."""
    kind = event.WhichOneof("event") or ""
    if kind == "node_chunk" and event.node_chunk.chunk.HasField("snapshot"):
        result = told(json_format.MessageToDict(event.node_chunk.chunk.snapshot.data)).plain.replace("\n", " ")
        return f"{event.sequence:>4} {kind:<19} {event.node_id:<12} {event.node_chunk.pin} {result}"
    content = to_object(getattr(event, kind)) if kind else {}
    content.pop("flow", None)
    words = " ".join(f"{name}={_short(value)}" for name, value in content.items())
    return f"{event.sequence:>4} {kind:<19} {event.node_id:<12} {words}".rstrip()


def _drawn(name: str, value: Value) -> RenderableType:
    content = to_object(value).get(value.WhichOneof("kind") or "")
    if isinstance(content, list) and content and all(_is_labelled(entry) for entry in content):
        return _bars(name, content)
    if isinstance(content, list) and content and all(_is_table(entry) for entry in content):
        return Group(*(_table(name, entry["rows"]) for entry in content))
    if isinstance(content, str) and "\n" in content:
        return Group(Text(name, style="bold"), Padding(Text(clean(content[:_MOST_TEXT])), (0, 0, 0, 2)))
    return Text.assemble((f"{name} ", "bold"), clean(_short(content)))


def _is_labelled(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.keys() >= _LABELLED


def _bars(name: str, entries: Sequence[dict[str, Any]]) -> RenderableType:
    table = Table(title=name, title_style="bold", title_justify="left", box=None, show_header=False)
    for entry in entries:
        share = float(entry["probability"])
        table.add_row(Text(clean(entry["label"])), ProgressBar(1, share, width=32), f"{share:.1%}")
    return table


def _is_table(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(rows := entry.get("rows"), list)
        and all(isinstance(row, list) for row in rows)
    )


def _table(name: str, rows: Sequence[Sequence[Any]]) -> RenderableType:
    table = Table(title=name, title_style="bold", title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
