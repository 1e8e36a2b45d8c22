"""Runs as tables: many, a line each, and one, a line for each of its nodes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.cli.results import clean
from mediamesh.wire.json import short_name

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from mediamesh.api.flow.v1.execution_pb2 import Execution, NodeExecution

__all__ = ["run_table", "runs_table"]

_WIDTH = 24
_STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "running": "cyan",
    "pending": "dim",
}
_DONE = {execution_pb2.NODE_STATE_PENDING, execution_pb2.NODE_STATE_RUNNING}


def runs_table(executions: Iterable[Execution]) -> RenderableType:
    """Return runs as a table: what each ran, how far it is, and why it failed."""
    table = Table(box=None)
    for heading in ("run", "flow", "state", "began", "took", "nodes", ""):
        table.add_column(heading, no_wrap=heading in {"run", "began", "took", "nodes"})
    for execution in executions:
        ended = sum(node.state not in _DONE for node in execution.nodes)
        table.add_row(
            execution.execution_id,
            Text(execution.flow.id),
            _run_state(execution),
            f"{execution.create_time.ToDatetime(tzinfo=UTC).astimezone():%m-%d %H:%M:%S}",
            _took(execution),
            f"{ended}/{len(execution.nodes)}",
            Text(clean(execution.error.message)),
        )
    return table


def run_table(execution: Execution) -> RenderableType:
    """Return one run: a line about the whole, and a table of its nodes with the times when they ran."""
    table = Table(box=None)
    for heading in ("node", "agent", "state", "try", "began", "took", "", "what"):
        table.add_column(heading, no_wrap=heading not in {"agent", "what"})
    for known, node in zip(execution.flow.nodes, execution.nodes, strict=True):
        started = node.HasField("start_time")
        table.add_row(
            Text(node.node_id),
            Text(known.type, style="dim"),
            _styled(_node_state(node)),
            str(node.attempt or ""),
            f"+{_between(execution.create_time, node.start_time):.3f} s" if started else "",
            f"{_node_seconds(node):.3f} s" if started else "",
            _bar(execution, node) if started else "",
            Text(clean(_what(node))),
        )
    return Group(_about(execution), table)


def _about(execution: Execution) -> RenderableType:
    parts: list[str | Text | tuple[str, str]] = [
        (execution.execution_id, "bold"),
        f"  {execution.flow.id}  ",
        _run_state(execution),
        f"  {execution.create_time.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M:%S}  {_took(execution)}",
        f"  {execution.last_sequence} events",
    ]
    if execution.takeovers:
        parts.append(f"  taken over {execution.takeovers} times" if execution.takeovers > 1 else "  taken over once")
    if execution.error.message:
        parts.append((f"\n{clean(execution.error.message)}", "red"))
    return Text.assemble(*parts)


def _run_state(execution: Execution) -> Text:
    states = execution_pb2.ExecutionState
    return _styled(short_name(states.DESCRIPTOR, states.Name(execution.state)))


def _node_state(node: NodeExecution) -> str:
    return short_name(execution_pb2.NodeState.DESCRIPTOR, execution_pb2.NodeState.Name(node.state))


def _styled(state: str) -> Text:
    return Text(state, style=_STYLES.get(state, ""))


def _took(execution: Execution) -> str:
    return f"{_between(execution.create_time, execution.end_time):.3f} s"


def _node_seconds(node: NodeExecution) -> float:
    return _between(node.start_time, node.end_time)


def _between(begin: Timestamp, end: Timestamp) -> float:
    """Return the seconds between two times; an end that is not set is now."""
    return max(0, (end.ToNanoseconds() or time.time_ns()) - begin.ToNanoseconds()) / 1e9


def _bar(execution: Execution, node: NodeExecution) -> Text:
    """Return when the node ran, within the time of the run."""
    whole = _between(execution.create_time, execution.end_time) or 1e-9
    first = min(_WIDTH - 1, int(_WIDTH * _between(execution.create_time, node.start_time) / whole))
    length = max(1, min(_WIDTH - first, round(_WIDTH * _node_seconds(node) / whole)))
    style = _STYLES[_node_state(node)]
    return Text.assemble(" " * first, ("\N{BLACK RECTANGLE}" * length, style), " " * (_WIDTH - first - length))


def _what(node: NodeExecution) -> str:
    if node.error.message:
        return node.error.message
    if node.HasField("skipped"):
        cause = node.skipped.cause_node_id
        return f"a condition at {cause}" if node.skipped.by_condition else f"{cause} failed"
    parts = ["from the cache"] if node.cached else []
    return ", ".join([*parts, *sorted(node.outputs), *(f"{stream.pin} (stream)" for stream in node.streams)])
